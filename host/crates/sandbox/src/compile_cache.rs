//! Keeps compiled plugins, so that the next start need not compile. A code file is identified by the content it was
//! compiled from, and by the engine it is for.
//!
//! Code is run as it is. So the cache folder must be writable by nobody else; without such a folder, the code is kept
//! for this process only. A digest behind the code reveals a file torn by a crash.
//!
//! Loading never depends on the cache: if no disk takes the code, it is used from memory.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use state::digest::{self, Digest};
use state::private_folder;
use tempfile::{PathPersistError, TempDir, TempPath};
use tracing::{debug, warn};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::load_error::is_of_the_machine;

/// Code that no host has loaded for this long is removed.
const UNUSED_MAX: Duration = Duration::from_hours(30 * 24);
const EXTENSION: &str = "cwasm";

/// The code folder of one engine.
#[derive(Debug)]
pub(super) struct CodeCache {
    /// `None` if there is no place for one.
    folder: Option<PathBuf>,
    /// The folder of all engines, if it outlives the process.
    all: Option<PathBuf>,
    /// A folder that is deleted with the process.
    _temporary: Option<TempDir>,
}

impl CodeCache {
    /// Opens the cache below the state folder, or else a temporary one for this process.
    pub(super) fn open(state: Option<&Path>, engine: &Engine) -> Self {
        let key = key(engine);
        if let Some(state) = state {
            let all = state.join("compiled");
            let folder = all.join(&key);
            match private_folder(&all).and_then(|()| private_folder(&folder)) {
                Ok(()) => {
                    sweep(&all);
                    return Self { folder: Some(folder), all: Some(all), _temporary: None };
                }
                Err(error) => {
                    warn!("compiled plugins are not kept for the next start: {}: {error}", all.display());
                }
            }
        }
        // `tempdir` creates a folder that only this user can access.
        match tempfile::Builder::new().prefix("notify-host-").tempdir() {
            Ok(temporary) => Self { folder: Some(temporary.path().to_owned()), all: None, _temporary: Some(temporary) },
            Err(error) => {
                warn!("there is no place for compiled plugins, which are used from memory: {error}");
                Self { folder: None, all: None, _temporary: None }
            }
        }
    }

    /// Creates a uniquely named file for unfinished code, because other hosts may compile the same plugin. Returns
    /// `None` if there is no place for one.
    pub(super) fn part(&self) -> io::Result<Option<TempPath>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        if let Some(all) = &self.all {
            // Somebody may have deleted the folder while this host runs.
            private_folder(all).and_then(|()| private_folder(folder))?;
        }
        Ok(Some(tempfile::Builder::new().suffix(".part").tempfile_in(folder)?.into_temp_path()))
    }

    /// Moves a finished part into the cache. The error contains the part, which is usable for as long as it lives.
    pub(super) fn keep(&self, part: TempPath, content: Digest) -> Result<PathBuf, PathPersistError> {
        let Some(path) = self.path(content) else {
            let error = io::Error::new(io::ErrorKind::NotFound, "there is no folder for it");
            return Err(PathPersistError { error, path: part });
        };
        part.persist(&path)?;
        // A host may run for months, and every new version adds to the cache.
        self.all.as_deref().inspect(|all| sweep(all));
        Ok(path)
    }

    /// Returns the path of the code for a plugin with this content.
    pub(super) fn path(&self, content: Digest) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(content.to_string()).with_extension(EXTENSION))
    }

    /// Loads the code from the cache, if it is there, intact and usable.
    pub(super) fn load(&self, engine: &Engine, content: Digest) -> Option<Component> {
        let path = self.path(content)?;
        match load_file(engine, &path) {
            Ok(component) => Some(component),
            Err(Unusable::NotThere) => None,
            Err(problem) => {
                debug!(path = %path.display(), "compiled code that cannot be used: {problem}");
                None
            }
        }
    }
}

/// Why compiled code cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("there is none")]
    NotThere,
    #[error("it is torn")]
    Torn,
    /// It may be usable a moment later.
    #[error("{0}")]
    Machine(String),
    /// It is for another engine, or too large for this one.
    #[error("{0}")]
    Unfit(String),
}

impl Unusable {
    fn of_engine(error: &wasmtime::Error) -> Self {
        let said = format!("{error:#}");
        if is_of_the_machine(error) { Self::Machine(said) } else { Self::Unfit(said) }
    }

    fn of_reading(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::NotThere } else { Self::Machine(error.to_string()) }
    }
}

/// Loads code from a file of the cache, or from a part.
pub(super) fn load_file(engine: &Engine, path: &Path) -> Result<Component, Unusable> {
    let file = File::open(path).map_err(|error| Unusable::of_reading(&error))?;
    if !is_whole(&file).map_err(|error| Unusable::of_reading(&error))? {
        return Err(Unusable::Torn);
    }
    // Marks the file as used. If that fails, the plugin will be compiled again one day.
    let _ = file.set_modified(SystemTime::now());
    #[expect(unsafe_code, reason = "the file's content is run as it stands")]
    // SAFETY: the file was written by `Engine::precompile_component` of this program, through `Compiler`, into a
    // folder that nobody else can write to, which `private_folder` has ensured. It is never changed afterwards, and
    // its digest shows that it is complete. wasmtime itself detects code for another engine.
    let loaded = unsafe { Component::deserialize_file(engine, path) };
    loaded.map_err(|error| Unusable::of_engine(&error))
}

/// Loads code that `write_to` wrote and that never was in a file.
pub(super) fn load_bytes(engine: &Engine, written: &[u8]) -> Result<Component, Unusable> {
    let Some((code, digest)) = written.split_last_chunk::<{ digest::BYTES }>() else { return Err(Unusable::Torn) };
    if Digest::of(code).as_bytes() != digest {
        return Err(Unusable::Torn);
    }
    #[expect(unsafe_code, reason = "the bytes are run as they stand")]
    // SAFETY: the bytes were made by `Engine::precompile_component` of this program, in the process that `Compiler`
    // started for it, and came through a pipe that nobody else has an end of. Their digest shows that they are
    // complete.
    let loaded = unsafe { Component::deserialize(engine, code) };
    loaded.map_err(|error| Unusable::of_engine(&error))
}

/// Writes code in the cache's format: the digest follows it, where the engine does not look.
pub(super) fn write(output: &Path, code: &[u8]) -> io::Result<()> {
    let mut file = File::create(output)?;
    write_to(&mut file, code)?;
    // Without this, the name may survive a crash of the machine and the content may not.
    file.sync_all()
}

/// Like [`write()`], to any output.
pub(super) fn write_to(output: &mut impl io::Write, code: &[u8]) -> io::Result<()> {
    output.write_all(code)?;
    output.write_all(Digest::of(code).as_bytes())?;
    output.flush()
}

/// Checks the digest. Reads piece by piece, because code is many times larger than the plugin and is mapped when
/// loaded.
fn is_whole(file: &File) -> io::Result<bool> {
    let Some(code_bytes) = file.metadata()?.len().checked_sub(digest::BYTES as u64) else { return Ok(false) };
    let (code, mut kept) = (Digest::of_all(file.take(code_bytes))?, [0; digest::BYTES]);
    let mut behind = file;
    behind.read_exact(&mut kept)?;
    Ok(*code.as_bytes() == kept)
}

/// Returns a key that changes with everything the code depends on, besides the plugin itself.
fn key(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    // Our conversion of core modules into components may change.
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Removes code that was unused for long, of any engine.
fn sweep(all: &Path) {
    let files = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_old = |path: &Path| {
        let used = fs::metadata(path).and_then(|metadata| metadata.modified());
        used.is_ok_and(|used| used.elapsed().is_ok_and(|unused| unused > UNUSED_MAX))
    };
    for folder in files(all) {
        // Errors are ignored, because another host may be removing the same files.
        for file in files(&folder).filter(|file| is_old(file)) {
            let _ = fs::remove_file(file);
        }
        if is_old(&folder) {
            // Fails unless the folder is empty.
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
        let cache = CodeCache::open(Some(state.path()), &engine);
        let content = Digest::of(b"x");
        assert!(cache.load(&engine, content).is_none());
        let code = engine.precompile_component(&wat::parse_str("(component)").unwrap()).unwrap();
        let keep = |content| {
            let part = cache.part().unwrap().unwrap();
            write(&part, &code).unwrap();
            cache.keep(part, content).unwrap();
        };
        keep(content);
        let parts = [cache.part().unwrap().unwrap(), cache.part().unwrap().unwrap()];
        assert_ne!(*parts[0], *parts[1], "two hosts may have the same process id");
        assert!(cache.load(&engine, content).is_some());

        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let other = Engine::new(&config).unwrap();
        assert_ne!(key(&other), key(&engine));
        assert!(cache.load(&other, content).is_none(), "it is refused, not run");

        let make_old = || {
            let old = cache.path(Digest::of(b"old")).unwrap();
            fs::write(&old, "").unwrap();
            File::options().write(true).open(&old).unwrap().set_modified(SystemTime::now() - 2 * UNUSED_MAX).unwrap();
            old
        };
        let old = make_old();
        let next = CodeCache::open(Some(state.path()), &engine);
        assert!(!old.exists());
        let old = make_old();
        keep(Digest::of(b"y"));
        assert!(!old.exists(), "and whenever something comes to it");
        assert!(next.load(&engine, content).is_some());
    }

    #[test]
    fn code_that_was_never_in_a_file_is_used_if_it_is_whole() {
        let engine = Engine::default();
        let code = engine.precompile_component(&wat::parse_str("(component)").unwrap()).unwrap();
        let mut written = Vec::new();
        write_to(&mut written, &code).unwrap();
        load_bytes(&engine, &written).unwrap();
        for torn in [&written[..written.len() - 1], &written[1..], &written[..8], &[]] {
            assert!(matches!(load_bytes(&engine, torn), Err(Unusable::Torn)));
        }
    }
}
