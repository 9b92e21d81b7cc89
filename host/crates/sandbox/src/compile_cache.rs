//! Compiled plugins are kept, so that the next start need not compile. A file of code is known by what
//! it was made of, and by the engine that it is for.
//!
//! Code is run as it stands. So the folder must be one that nobody else can write to; where there
//! is none, the code is kept for this process alone. And its digest stands behind it, by which code that
//! a crash has torn is known.
//!
//! Keeping code is never what loading depends on: where no disk takes it, it is used from memory.

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

/// Code that no host has loaded for so long is removed.
const UNUSED_MAX: Duration = Duration::from_hours(30 * 24);
const EXTENSION: &str = "cwasm";

/// The folder of code for one engine.
#[derive(Debug)]
pub(super) struct CodeCache {
    /// `None`: there is no place for one.
    folder: Option<PathBuf>,
    /// The folder of all engines, if it outlives the process.
    all: Option<PathBuf>,
    /// Ends with the process.
    _temporary: Option<TempDir>,
}

impl CodeCache {
    /// Below the state folder, or else for this process alone.
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
        // Made for this user alone.
        match tempfile::Builder::new().prefix("notify-host-").tempdir() {
            Ok(temporary) => Self { folder: Some(temporary.path().to_owned()), all: None, _temporary: Some(temporary) },
            Err(error) => {
                warn!("there is no place for compiled plugins, which are used from memory: {error}");
                Self { folder: None, all: None, _temporary: None }
            }
        }
    }

    /// A file of a name that nobody else has, for code until it is whole: other hosts may be at the same. `None`: there
    /// is no place for any.
    pub(super) fn part(&self) -> io::Result<Option<TempPath>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        if let Some(all) = &self.all {
            // Somebody may have cleaned up, while this host runs.
            private_folder(all).and_then(|()| private_folder(folder))?;
        }
        Ok(Some(tempfile::Builder::new().suffix(".part").tempfile_in(folder)?.into_temp_path()))
    }

    /// Takes in what was written to the part. The error has the part, which is as good as long as it lives.
    pub(super) fn keep(&self, part: TempPath, content: Digest) -> Result<PathBuf, PathPersistError> {
        let Some(path) = self.path(content) else {
            let error = io::Error::new(io::ErrorKind::NotFound, "there is no folder for it");
            return Err(PathPersistError { error, path: part });
        };
        part.persist(&path)?;
        // A host may run for months, and every new version adds to it.
        self.all.as_deref().inspect(|all| sweep(all));
        Ok(path)
    }

    /// Where the code is of a plugin with this content.
    pub(super) fn path(&self, content: Digest) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(content.to_string()).with_extension(EXTENSION))
    }

    /// The code that was kept, if it is there, whole and of use.
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
    /// It may be of use a moment later.
    #[error("{0}")]
    Machine(String),
    /// It is not for this engine, or too large for it.
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

/// The code in a file of the cache, or in a part of it.
pub(super) fn load_file(engine: &Engine, path: &Path) -> Result<Component, Unusable> {
    let file = File::open(path).map_err(|error| Unusable::of_reading(&error))?;
    if !is_whole(&file).map_err(|error| Unusable::of_reading(&error))? {
        return Err(Unusable::Torn);
    }
    // Says that it is still of use. If that fails it will be compiled again one day.
    let _ = file.set_modified(SystemTime::now());
    #[expect(unsafe_code, reason = "the file's content is run as it stands")]
    // SAFETY: the file was written by `Engine::precompile_component` of this program, by way of
    // `Compiler`, into a folder that nobody else can write to, which `private_folder` has made sure of,
    // is never changed afterwards, and all that was written is there, by its digest. That it is for
    // another engine is found out by wasmtime.
    let loaded = unsafe { Component::deserialize_file(engine, path) };
    loaded.map_err(|error| Unusable::of_engine(&error))
}

/// The code that `write_to` wrote, and that never was in a file.
pub(super) fn load_bytes(engine: &Engine, written: &[u8]) -> Result<Component, Unusable> {
    let Some((code, digest)) = written.split_last_chunk::<{ digest::BYTES }>() else { return Err(Unusable::Torn) };
    if Digest::of(code).as_bytes() != digest {
        return Err(Unusable::Torn);
    }
    #[expect(unsafe_code, reason = "the bytes are run as they stand")]
    // SAFETY: the bytes were made by `Engine::precompile_component` of this program, in the process that `Compiler` has
    // started for it, and came through a pipe that nobody else has an end of; all of them are there, by their digest.
    let loaded = unsafe { Component::deserialize(engine, code) };
    loaded.map_err(|error| Unusable::of_engine(&error))
}

/// Writes code as it is kept: its digest comes behind it, where the engine does not look.
pub(super) fn write(output: &Path, code: &[u8]) -> io::Result<()> {
    let mut file = File::create(output)?;
    write_to(&mut file, code)?;
    // Else its name may outlive a crash of the machine, and its content not.
    file.sync_all()
}

/// The same to wherever it goes.
pub(super) fn write_to(output: &mut impl io::Write, code: &[u8]) -> io::Result<()> {
    output.write_all(code)?;
    output.write_all(Digest::of(code).as_bytes())?;
    output.flush()
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
