//! A draft: a temporary file that the user's editor opens.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use tempfile::TempPath;

/// The file is removed on drop. Only its owner may read it.
pub(super) struct Draft {
    path: TempPath,
}

impl Draft {
    pub(super) fn new(text: &str) -> anyhow::Result<Self> {
        let mut file = tempfile::Builder::new().prefix("dead-letter-").suffix(".json").tempfile()?;
        file.write_all(text.as_bytes())?;
        Ok(Self { path: file.into_temp_path() })
    }

    /// Opens the editor, waits until it is closed, and returns the text.
    pub(super) fn open(&self) -> anyhow::Result<String> {
        let editor =
            ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|editor| !editor.is_empty()));
        let editor = editor.unwrap_or_else(|| "vi".to_owned());
        // As in git, the variable may contain arguments. It is the user's own.
        let status = Command::new("sh")
            .args(["-c", &format!("{editor} \"$1\""), "sh"])
            .arg(&self.path)
            .status()
            .with_context(|| format!("cannot start the editor {editor:?}: set $EDITOR"))?;
        if !status.success() {
            bail!("the editor {editor:?} ended with {status}; the letter stays as it is");
        }
        // Read by path, because many editors replace the file.
        fs::read_to_string(&self.path).context("cannot read what you wrote; the letter stays as it is")
    }

    /// Keeps the file, so that no work is lost.
    pub(super) fn keep(self) -> anyhow::Result<PathBuf> {
        Ok(self.path.keep()?)
    }
}
