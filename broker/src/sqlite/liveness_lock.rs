//! Who is alive: each session that consumes holds a lock on a file of its own.
//!
//! The system releases the lock when the process ends, however it ends. So the others can tell
//! the messages of the dead, and nobody has to guess by time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// This session's lock.
#[derive(Debug)]
pub(super) struct LivenessLock {
    name: String,
    path: PathBuf,
    _lock: File,
}

impl LivenessLock {
    /// Takes it, in a folder beside the database.
    pub(super) fn take(database: &Path) -> io::Result<Self> {
        let folder = folder_of(database);
        std::fs::create_dir_all(&folder)?;
        let name = Uuid::new_v4().to_string();
        let path = folder.join(&name);
        let lock = OpenOptions::new().write(true).create_new(true).open(&path)?;
        lock.lock()?;
        Ok(Self { name, path, _lock: lock })
    }

    /// What the table `consumer` calls it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for LivenessLock {
    fn drop(&mut self) {
        // Whoever finds no file knows as much as whoever finds it unlocked.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the session of this name has ended. Its file is removed.
pub(super) fn has_ended(database: &Path, name: &str) -> bool {
    let path = folder_of(database).join(name);
    let Ok(file) = File::open(&path) else {
        // It is made before its name is written anywhere, so its absence is no accident.
        return !path.exists();
    };
    match file.try_lock() {
        Ok(()) => {
            let _ = std::fs::remove_file(&path);
            true
        }
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

fn folder_of(database: &Path) -> PathBuf {
    let mut folder = database.as_os_str().to_owned();
    folder.push("-consumers");
    folder.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_ended_once_nobody_holds_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("queue.db");
        let liveness_lock = LivenessLock::take(&database).unwrap();
        let name = liveness_lock.name().to_owned();
        assert!(!has_ended(&database, &name));
        drop(liveness_lock);
        assert!(has_ended(&database, &name));

        // What a killed process leaves: the file, and no lock.
        File::create(folder_of(&database).join("killed")).unwrap();
        assert!(has_ended(&database, "killed"));
        assert!(!folder_of(&database).join("killed").exists());
    }
}
