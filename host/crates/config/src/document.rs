//! A document is the text that one reading parses: the file, then one line for each override (a flag or an environment
//! variable).
//!
//! The overrides follow the file's text, so that one offset into one text identifies where any value comes from.

use std::fmt::Write as _;
use std::path::Path;

use crate::source_location::SourceLocation;

/// A value from a flag or an environment variable. It replaces the file's value.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Override {
    /// Path of the key, such as `journal.age-max`.
    pub(super) path: String,
    /// The value as TOML, on one line.
    pub(super) value: String,
    /// Name of the flag or variable, such as `NOTIFY_JOURNAL_AGE_MAX` or `--broker`.
    pub(super) name: String,
}

pub(super) struct Document<'a> {
    file: &'a Path,
    /// The file's text, then one line for each override.
    pub(super) text: String,
    file_bytes: usize,
    overrides: &'a [Override],
}

impl<'a> Document<'a> {
    pub(super) fn new(file: &'a Path, text: &str, overrides: &'a [Override]) -> Self {
        let file_bytes = text.len();
        let mut text = format!("{text}\n");
        for Override { path, value, .. } in overrides {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{path} = {value}");
        }
        Self { file, text, file_bytes, overrides }
    }

    pub(super) fn file_text(&self) -> &str {
        self.text.get(..self.file_bytes).unwrap_or_default()
    }

    /// Returns the overrides alone, padded with spaces so that their offsets are those in `text`.
    pub(super) fn text_above(&self) -> String {
        let above = self.text.get(self.file_bytes..).unwrap_or_default();
        format!("{}{above}", " ".repeat(self.file_bytes))
    }

    pub(super) fn is_in_file(&self, at: usize) -> bool {
        at <= self.file_bytes
    }

    /// Returns the line number of an offset, from 1.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }

    pub(super) fn place(&self, at: usize) -> SourceLocation {
        if !self.is_in_file(at) {
            let number = self.line_of(at) - self.line_of(self.file_bytes + 1);
            let name = self.overrides.get(number).map(|above| above.name.clone());
            return SourceLocation::Override(name.unwrap_or_default());
        }
        let before = self.text.get(..at).unwrap_or_default();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        SourceLocation::File { file: self.file.to_owned(), line: self.line_of(at), column }
    }

    pub(super) fn file(&self) -> &Path {
        self.file
    }
}
