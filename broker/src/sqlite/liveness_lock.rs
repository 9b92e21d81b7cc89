//! Shows which sessions are alive: each session that consumes holds a lock on a file of its own.
//!
//! The operating system releases the lock when the process ends, for whatever reason. So other
//! sessions can recognize the messages of a dead one without guessing by time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The lock of this session.
#[derive(Debug)]
pub(super) struct LivenessLock {
    name: String,
    path: PathBuf,
    _lock: File,
}

impl LivenessLock {
    /// Takes the lock, in a folder beside the database.
    pub(super) fn take(database: &Path) -> io::Result<Self> {
        let folder = folder_of(database);
        std::fs::create_dir_all(&folder)?;
        let name = Uuid::new_v4().to_string();
        let path = folder.join(&name);
        let lock = OpenOptions::new().write(true).create_new(true).open(&path)?;
        lock.lock()?;
        Ok(Self { name, path, _lock: lock })
    }

    /// Returns the lock's name in the table `consumer`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for LivenessLock {
    fn drop(&mut self) {
        // A missing file tells other sessions as much as an unlocked one.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Returns whether the session with this lock name has ended, and removes its file if so.
pub(super) fn has_ended(database: &Path, name: &str) -> bool {
    let path = folder_of(database).join(name);
    let Ok(file) = File::open(&path) else {
        // The file is created before its name is written anywhere, so a missing file means that the
        // session has ended.
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

        // A killed process leaves the file without a lock.
        File::create(folder_of(&database).join("killed")).unwrap();
        assert!(has_ended(&database, "killed"));
        assert!(!folder_of(&database).join("killed").exists());
    }
}
