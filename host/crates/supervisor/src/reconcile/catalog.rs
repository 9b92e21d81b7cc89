//! The catalog knows of every plugin in the folder how it stands, those included that do not run. And
//! which ones the operator holds: that outlives the host.

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

/// How the files of one plugin stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What was loaded last with success, and runs unless it is switched off.
    pub loaded: Option<LoadedAs>,
    /// Why what is in the folder now did not load.
    pub problem: Option<String>,
    /// When that is tried again, if it was the machine's fault.
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

/// Of all plugins of one folder.
#[derive(Debug)]
pub struct Catalog {
    all: Mutex<BTreeMap<String, Status>>,
    /// A file for each plugin that is held.
    held: Option<PathBuf>,
}

impl Catalog {
    pub(super) fn new(state: Option<&Path>) -> Self {
        Self { all: Mutex::default(), held: state.map(|state| state.join("held")) }
    }

    pub fn all(&self) -> BTreeMap<String, Status> {
        self.lock().clone()
    }

    /// It is about to be loaded; what is known of it already stays.
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

    /// `again_in`: it is tried again then.
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

    /// Whether the operator holds it. An error says that the machine cannot tell just now.
    pub(super) fn is_held(&self, name: &str) -> io::Result<bool> {
        let Some(held) = &self.held else { return Ok(false) };
        match held.join(name).try_exists() {
            Err(error) if is_transient(&error) => Err(error),
            // This user has no such folder, and so has held nothing.
            held => Ok(held.unwrap_or(false)),
        }
    }

    /// Remembers that the operator holds it, or holds it no more.
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
