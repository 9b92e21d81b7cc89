//! Compiled plugins are kept, so that the next start need not compile. A file of code is known by what
//! it was made of, and by the engine that it is for.
//!
//! Code is run as it stands. So the folder must be one that nobody else can write to; where there
//! is none, the code is kept for this process alone.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tracing::{debug, warn};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::digest::Digest;
use crate::state::private_folder;

/// Code that no host has loaded for so long is removed.
const UNUSED_MAX: Duration = Duration::from_hours(30 * 24);
const EXTENSION: &str = "cwasm";

/// The folder of code for one engine.
#[derive(Debug)]
pub(super) struct CodeCache {
    folder: PathBuf,
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
                    return Ok(Self { folder, _temporary: None });
                }
                Err(error) => {
                    warn!("compiled plugins are not kept for the next start: {}: {error}", all.display());
                }
            }
        }
        // Made for this user alone.
        let temporary = tempfile::Builder::new().prefix("notify-host-").tempdir()?;
        Ok(Self { folder: temporary.path().to_owned(), _temporary: Some(temporary) })
    }

    /// Where the code is, or goes to, of a plugin with this content.
    pub(super) fn path(&self, content: Digest) -> PathBuf {
        self.folder.join(content.to_string()).with_extension(EXTENSION)
    }

    /// The code, if it is there.
    pub(super) fn load(&self, engine: &Engine, content: Digest) -> Option<Component> {
        let path = self.path(content);
        let file = File::open(&path).ok()?;
        // Says that it is still of use. If that fails it will be compiled again one day.
        let _ = file.set_modified(SystemTime::now());
        #[expect(unsafe_code, reason = "the file's content is run as it stands")]
        // SAFETY: the file was written by `Engine::precompile_component` of this program, by way of
        // `Compiler`, into a folder that nobody else can write to, which `private_folder` has made sure of,
        // and is never changed afterwards. That it is for another engine is found out by wasmtime.
        let loaded = unsafe { Component::deserialize_file(engine, &path) };
        loaded.inspect_err(|error| debug!(%error, path = %path.display(), "compiled code that cannot be used")).ok()
    }
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
        fs::write(cache.path(content), engine.precompile_component(&wat::parse_str("(component)").unwrap()).unwrap())
            .unwrap();
        assert!(cache.load(&engine, content).is_some());

        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let other = Engine::new(&config).unwrap();
        assert_ne!(key(&other), key(&engine));
        assert!(cache.load(&other, content).is_none(), "it is refused, not run");

        let old = cache.path(Digest::of(b"old"));
        fs::write(&old, "").unwrap();
        File::options().write(true).open(&old).unwrap().set_modified(SystemTime::now() - 2 * UNUSED_MAX).unwrap();
        let cache = CodeCache::open(Some(state.path()), &engine).unwrap();
        assert!(!old.exists());
        assert!(cache.load(&engine, content).is_some());
    }
}
