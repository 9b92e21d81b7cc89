//! Keeps the plugin versions that worked, for rollback: the content of each plugin's files, from the last few
//! times that they loaded.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sandbox::Files;
use serde::{Deserialize, Serialize};
use state::digest::Digest;
use state::{private_folder, write_whole};

/// Maximum number of versions kept for one plugin.
const KEPT_MAX: usize = 5;
/// How long an unlisted file is kept. A host writes the file first, and the list that names it a moment later.
const SWEPT_AFTER: Duration = Duration::from_mins(10);

/// The kept versions of the plugins of one folder.
#[derive(Clone, Debug)]
pub struct Versions {
    folder: PathBuf,
}

/// A version that worked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Good {
    pub version: String,
    pub sha256: Digest,
    /// The path of the plugin's file within the plugin folder.
    pub wasm: PathBuf,
    pub toml: Option<String>,
    /// When it was first loaded.
    pub since: Timestamp,
}

impl Good {
    /// Returns whether both would load the same files.
    fn is(&self, other: &Self) -> bool {
        (self.sha256, &self.wasm, &self.toml) == (other.sha256, &other.wasm, &other.toml)
    }
}

impl Versions {
    /// Creates the store. `state` is the state folder of the plugin folder.
    pub fn of(state: &Path) -> Self {
        Self { folder: state.join("versions") }
    }

    /// Lists a plugin's versions, oldest first. A damaged list counts as empty. An unreadable list is an error,
    /// because it must not be overwritten.
    pub fn of_plugin(&self, name: &str) -> io::Result<Vec<Good>> {
        match fs::read(self.list(name)) {
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Records a version that has just loaded.
    pub fn remember(&self, plugins: &Path, files: &Files, version: &str) -> io::Result<()> {
        let wasm = files.wasm_path.strip_prefix(plugins).unwrap_or(&files.wasm_path).to_owned();
        let new = Good {
            version: version.to_owned(),
            sha256: files.digest,
            wasm,
            toml: files.toml.clone(),
            since: Timestamp::now(),
        };
        private_folder(&self.folder)?;
        // Keep the file first: a version already in the list may have lost its file.
        self.keep(files)?;
        let mut all = self.of_plugin(&files.name)?;
        if all.last().is_some_and(|last| last.is(&new)) {
            return Ok(());
        }
        all.push(new);
        let superfluous = all.len().saturating_sub(KEPT_MAX);
        self.write(&files.name, &all[superfluous..])?;
        self.sweep()
    }

    /// Forgets all but the first `count` versions.
    pub fn truncate(&self, name: &str, count: usize) -> io::Result<()> {
        let mut all = self.of_plugin(name)?;
        all.truncate(count);
        self.write(name, &all)?;
        self.sweep()
    }

    /// Reads the kept plugin file.
    pub fn content(&self, good: &Good) -> io::Result<Vec<u8>> {
        let content = fs::read(self.content_path(good.sha256))?;
        if Digest::of(&content) == good.sha256 {
            return Ok(content);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the file that was kept is damaged"))
    }

    /// Stores the plugin's file, or marks the stored one as still in use.
    fn keep(&self, files: &Files) -> io::Result<()> {
        let path = self.content_path(files.digest);
        let kept = File::options().write(true).open(&path).and_then(|file| {
            file.set_modified(SystemTime::now())?;
            file.metadata()
        });
        if kept.is_ok_and(|kept| kept.len() == files.content.len() as u64) {
            return Ok(());
        }
        write_whole(&path, &files.content)
    }

    fn write(&self, name: &str, all: &[Good]) -> io::Result<()> {
        write_whole(&self.list(name), &serde_json::to_vec_pretty(all)?)
    }

    fn list(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    fn content_path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}.wasm"))
    }

    /// Removes files that no version uses, except recent ones that another host may be about to list.
    fn sweep(&self) -> io::Result<()> {
        let mut used = Vec::new();
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => used.extend(self.of_plugin(&name)?.into_iter().map(|good| good.sha256.to_string())),
                Some("wasm") => kept.push((name, path)),
                _ => {}
            }
        }
        let is_settled = |path: &Path| {
            let kept = fs::metadata(path).and_then(|metadata| metadata.modified());
            kept.is_ok_and(|kept| kept.elapsed().is_ok_and(|age| age > SWEPT_AFTER))
        };
        for (_, path) in kept.into_iter().filter(|(name, path)| !used.contains(name) && is_settled(path)) {
            // Another host may have removed it first.
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(content: &str, toml: Option<&str>) -> Files {
        Files {
            name: "email".to_owned(),
            toml_path: "/plugins/email.toml".into(),
            wasm_path: "/plugins/lib/email.wasm".into(),
            toml: toml.map(str::to_owned),
            content: content.into(),
            digest: Digest::of(content.as_bytes()),
        }
    }

    #[test]
    fn the_last_few_that_worked_are_kept_each_file_once() {
        let state = tempfile::tempdir().unwrap();
        let versions = Versions::of(state.path());
        let remember =
            |content, toml| versions.remember(Path::new("/plugins"), &files(content, toml), content).unwrap();
        assert_eq!(versions.of_plugin("email").unwrap(), []);
        remember("1", None);
        remember("1", None);
        remember("1", Some("[config]"));
        let all = versions.of_plugin("email").unwrap();
        assert_eq!(all.len(), 2, "the same again is no version");
        assert_eq!((all[1].toml.as_deref(), all[1].wasm.as_path()), (Some("[config]"), Path::new("lib/email.wasm")));
        for content in ["2", "3", "4", "5", "1"] {
            remember(content, None);
        }
        let all = versions.of_plugin("email").unwrap();
        assert_eq!(all.iter().map(|good| &*good.version).collect::<Vec<_>>(), ["2", "3", "4", "5", "1"]);
        assert_eq!(versions.content(&all[0]).unwrap(), b"2");
        versions.truncate("email", 1).unwrap();
        assert!(versions.content(&all[4]).is_ok(), "another host may be about to list it");
        for good in &all {
            let file = File::options().write(true).open(versions.content_path(good.sha256)).unwrap();
            file.set_modified(SystemTime::now() - 2 * SWEPT_AFTER).unwrap();
        }
        versions.truncate("email", 1).unwrap();
        assert!(versions.content(&all[4]).is_err(), "it is swept");
        remember("2", None);
        let age = fs::metadata(versions.content_path(all[0].sha256)).unwrap().modified().unwrap().elapsed().unwrap();
        assert!(age < SWEPT_AFTER, "it is of use again");
        fs::write(versions.content_path(all[0].sha256), "x").unwrap();
        assert_eq!(versions.content(&all[0]).unwrap_err().to_string(), "the file that was kept is damaged");
        let lose: [fn(PathBuf); 2] = [|path| fs::write(path, "").unwrap(), |path| fs::remove_file(path).unwrap()];
        for lose in lose {
            lose(versions.content_path(all[0].sha256));
            remember("2", None);
            assert_eq!(versions.content(&all[0]).unwrap(), b"2", "what is lost is kept anew when it is loaded again");
        }
    }

    #[test]
    fn a_list_that_cannot_be_read_is_not_written_anew() {
        let state = tempfile::tempdir().unwrap();
        let versions = Versions::of(state.path());
        versions.remember(Path::new("/plugins"), &files("1", None), "1").unwrap();
        // Nobody can read a folder as a file, not even root.
        let list = versions.list("email");
        let kept = list.with_extension("kept");
        fs::rename(&list, &kept).unwrap();
        fs::create_dir(&list).unwrap();
        versions.of_plugin("email").unwrap_err();
        versions.remember(Path::new("/plugins"), &files("2", None), "2").unwrap_err();
        fs::remove_dir(&list).unwrap();
        fs::rename(&kept, &list).unwrap();
        assert_eq!(versions.of_plugin("email").unwrap().len(), 1);
    }
}
