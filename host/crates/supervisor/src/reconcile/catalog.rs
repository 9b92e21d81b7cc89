//! The catalog knows the status of every plugin in the folder, including plugins that do not run. It also
//! records which ones the operator has paused; that record outlives the host.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sandbox::{Entry, Plugin, is_plugin_name, is_transient};
use state::digest::Digest;
use state::{private_folder, write_whole};

/// The status of one plugin's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The files that last loaded successfully. They run unless the plugin is disabled.
    pub loaded: Option<LoadedAs>,
    /// Why the files now in the folder did not load.
    pub problem: Option<String>,
    /// When loading is tried again, if the machine was at fault.
    pub tried_again_at: Option<Timestamp>,
    pub is_off: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedAs {
    pub version: String,
    pub description: String,
    pub sha256: Digest,
    pub wasm: PathBuf,
    pub at: Timestamp,
}

/// The status of all plugins of one folder.
#[derive(Debug)]
pub struct Catalog {
    all: Mutex<BTreeMap<String, Status>>,
    /// A folder with one file for each paused plugin.
    held: Option<PathBuf>,
}

impl Catalog {
    pub(super) fn new(state: Option<&Path>) -> Self {
        Self { all: Mutex::default(), held: state.map(|state| state.join("held")) }
    }

    pub fn all(&self) -> BTreeMap<String, Status> {
        self.lock().clone()
    }

    /// Notes that the plugin is about to be loaded. A known status stays.
    pub(super) fn loading(&self, name: &str) {
        self.lock().entry(name.to_owned()).or_default();
    }

    pub(super) fn loaded(&self, name: &str, entry: &Entry, plugin: &Plugin) {
        let loaded = LoadedAs {
            version: plugin.info.version.clone(),
            description: plugin.info.description.clone(),
            sha256: plugin.digest,
            wasm: entry.wasm.clone(),
            at: Timestamp::now(),
        };
        self.lock().insert(name.to_owned(), Status { loaded: Some(loaded), ..Status::default() });
    }

    /// Records a failed load. `again_in` is the time until the next attempt, if there is one.
    pub(super) fn failed(&self, name: &str, problem: &str, again_in: Option<Duration>) {
        let mut all = self.lock();
        let status = all.entry(name.to_owned()).or_default();
        (status.problem, status.is_off) = (Some(problem.to_owned()), false);
        status.tried_again_at = again_in.and_then(|wait| Timestamp::now().checked_add(wait).ok());
    }

    pub(super) fn off(&self, name: &str) {
        self.lock().insert(name.to_owned(), Status { is_off: true, ..Status::default() });
    }

    pub(super) fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Returns whether the operator has paused the plugin. An error means that the machine cannot tell at the
    /// moment.
    pub(super) fn is_held(&self, name: &str) -> io::Result<bool> {
        let Some(held) = &self.held else { return Ok(false) };
        match held.join(name).try_exists() {
            Err(error) if is_transient(&error) => Err(error),
            // Other errors mean that this user has no such folder, and so has paused no plugin.
            held => Ok(held.unwrap_or(false)),
        }
    }

    /// Records that the operator paused or resumed the plugin.
    pub fn hold(&self, name: &str, held: bool) -> io::Result<()> {
        let Some(folder) = &self.held else { return Ok(()) };
        if !is_plugin_name(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "that is no name of a plugin"));
        }
        private_folder(folder)?;
        let file = folder.join(name);
        if held {
            return write_whole(&file, b"");
        }
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Status>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
