//! Compiled plugins are kept, so that the next start need not compile. A file of code is known by what
//! it was made of, and by the engine that it is for.
//!
//! Code is run as it stands. So the folder must be one that nobody else can write to; where there
//! is none, the code is kept for this process alone. And its digest stands behind it, by which code that
//! a crash has torn is known.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::{TempDir, TempPath};
use tracing::{debug, warn};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::digest::{self, Digest};
use crate::state::private_folder;

/// Code that no host has loaded for so long is removed.
const UNUSED_MAX: Duration = Duration::from_hours(30 * 24);
const EXTENSION: &str = "cwasm";

/// The folder of code for one engine.
#[derive(Debug)]
pub(super) struct CodeCache {
    folder: PathBuf,
    /// The folder of all engines, if it outlives the process.
    all: Option<PathBuf>,
    /// Ends with the process.
    _temporary: Option<TempDir>,
}

impl CodeCache {
    /// Below the state folder, or else for this process alone.
    pub(super) fn open(state: Option<&Path>, engine: &Engine) -> anyhow::Result<Self> {
        let key = key(engine);
        if let Some(state) = state {
            let all = state.join("compiled");
            let folder = all.join(&key);
            match private_folder(&all).and_then(|()| private_folder(&folder)) {
                Ok(()) => {
                    sweep(&all);
                    return Ok(Self { folder, all: Some(all), _temporary: None });
                }
                Err(error) => {
                    warn!("compiled plugins are not kept for the next start: {}: {error}", all.display());
                }
            }
        }
        // Made for this user alone.
        let temporary = tempfile::Builder::new().prefix("notify-host-").tempdir()?;
        Ok(Self { folder: temporary.path().to_owned(), all: None, _temporary: Some(temporary) })
    }

    /// A file of a name that nobody else has, for code until it is whole: other hosts may be at the same.
    pub(super) fn part(&self) -> io::Result<TempPath> {
        if let Some(all) = &self.all {
            // Somebody may have cleaned up, while this host runs.
            private_folder(all).and_then(|()| private_folder(&self.folder))?;
        }
        Ok(tempfile::Builder::new().suffix(".part").tempfile_in(&self.folder)?.into_temp_path())
    }

    /// Takes in what `write` has written to the part.
    pub(super) fn keep(&self, part: TempPath, content: Digest) -> io::Result<()> {
        part.persist(self.path(content))?;
        // A host may run for months, and every new version adds to it.
        self.all.as_deref().inspect(|all| sweep(all));
        Ok(())
    }

    /// Where the code is of a plugin with this content.
    pub(super) fn path(&self, content: Digest) -> PathBuf {
        self.folder.join(content.to_string()).with_extension(EXTENSION)
    }

    /// The code, if it is there and whole.
    pub(super) fn load(&self, engine: &Engine, content: Digest) -> Option<Component> {
        let path = self.path(content);
        let file = File::open(&path).ok()?;
        if !is_whole(&file).ok()? {
            debug!(path = %path.display(), "compiled code that is torn");
            return None;
        }
        // Says that it is still of use. If that fails it will be compiled again one day.
        let _ = file.set_modified(SystemTime::now());
        #[expect(unsafe_code, reason = "the file's content is run as it stands")]
        // SAFETY: the file was written by `Engine::precompile_component` of this program, by way of
        // `Compiler`, into a folder that nobody else can write to, which `private_folder` has made sure of,
        // is never changed afterwards, and all that was written is there, by its digest. That it is for
        // another engine is found out by wasmtime.
        let loaded = unsafe { Component::deserialize_file(engine, &path) };
        loaded.inspect_err(|error| debug!(%error, path = %path.display(), "compiled code that cannot be used")).ok()
    }
}

/// Writes code as it is kept: its digest comes behind it, where the engine does not look.
pub(super) fn write(output: &Path, code: &[u8]) -> io::Result<()> {
    let mut file = File::create(output)?;
    file.write_all(code)?;
    file.write_all(Digest::of(code).as_bytes())?;
    // Else its name may outlive a crash of the machine, and its content not.
    file.sync_all()
}

/// A piece at a time: code has many times the size of the plugin, and is mapped when it is loaded.
fn is_whole(file: &File) -> io::Result<bool> {
    let Some(code_bytes) = file.metadata()?.len().checked_sub(digest::BYTES as u64) else { return Ok(false) };
    let (code, mut kept) = (Digest::of_all(file.take(code_bytes))?, [0; digest::BYTES]);
    let mut behind = file;
    behind.read_exact(&mut kept)?;
    Ok(*code.as_bytes() == kept)
}

/// Changes with whatever the code depends on, besides the plugin itself.
fn key(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    // How core modules become components may change with us.
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Removes what nobody has used for long, of whatever engine.
fn sweep(all: &Path) {
    let files = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_old = |path: &Path| {
        let used = fs::metadata(path).and_then(|metadata| metadata.modified());
        used.is_ok_and(|used| used.elapsed().is_ok_and(|unused| unused > UNUSED_MAX))
    };
    for folder in files(all) {
        // Another host may be quicker, with either.
        for file in files(&folder).filter(|file| is_old(file)) {
            let _ = fs::remove_file(file);
        }
        if is_old(&folder) {
            // Fails unless it is empty.
            let _ = fs::remove_dir(&folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_kept_by_content_and_engine_and_swept_when_old() {
        let state = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CodeCache::open(Some(state.path()), &engine).unwrap();
        let content = Digest::of(b"x");
        assert!(cache.load(&engine, content).is_none());
        let code = engine.precompile_component(&wat::parse_str("(component)").unwrap()).unwrap();
        let keep = |content| {
            let part = cache.part().unwrap();
            write(&part, &code).unwrap();
            cache.keep(part, content).unwrap();
        };
        keep(content);
        let parts = [cache.part().unwrap(), cache.part().unwrap()];
        assert_ne!(*parts[0], *parts[1], "two hosts may have the same process id");
        assert!(cache.load(&engine, content).is_some());

        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let other = Engine::new(&config).unwrap();
        assert_ne!(key(&other), key(&engine));
        assert!(cache.load(&other, content).is_none(), "it is refused, not run");

        let make_old = || {
            let old = cache.path(Digest::of(b"old"));
            fs::write(&old, "").unwrap();
            File::options().write(true).open(&old).unwrap().set_modified(SystemTime::now() - 2 * UNUSED_MAX).unwrap();
            old
        };
        let old = make_old();
        let next = CodeCache::open(Some(state.path()), &engine).unwrap();
        assert!(!old.exists());
        let old = make_old();
        keep(Digest::of(b"y"));
        assert!(!old.exists(), "and whenever something comes to it");
        assert!(next.load(&engine, content).is_some());
    }
}
