//! Watches the plugin folder. It reports when something may have changed, and which files are still being
//! written.
//!
//! If the system cannot watch the folder (a network file system, a container's mount), the folder is scanned
//! every few seconds instead.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tracing::info;

/// Interval between scans without any reported change.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Changes closer together than this count as one, for example a plugin and its toml.
const QUIET: Duration = Duration::from_millis(150);
/// Longest wait for the folder to come to rest.
const RESTLESS_MAX: Duration = Duration::from_secs(2);
/// How long a file counts as being written after a write without a close. After that its writer is presumed
/// dead.
const WRITING_MAX: Duration = Duration::from_secs(30);
/// How long a file counts as being written after its creation without a write. It may be a link, which is never
/// closed.
const MADE_MAX: Duration = Duration::from_secs(1);
/// How long after its last write a file counts as complete, on systems that do not report a close.
const COMPLETE_AFTER: Duration = Duration::from_secs(2);
/// Maximum number of files remembered as being written.
const WRITING_COUNT_MAX: usize = 1000;

pub(super) struct FolderWatch {
    folder: PathBuf,
    /// Device and inode of the watched folder. Another folder may take its place.
    watched: Option<(u64, u64)>,
    watcher: Option<RecommendedWatcher>,
    seen: Arc<FolderChanges>,
    /// Whether the log already says that the folder cannot be watched.
    said: bool,
}

#[derive(Default)]
struct FolderChanges {
    stirred: Notify,
    /// Files that are being written, each with the time until which to believe that.
    writing: Mutex<HashMap<PathBuf, Instant>>,
}

impl FolderWatch {
    pub(super) fn new(folder: PathBuf) -> Self {
        // The system reports absolute paths.
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let mut watch = Self { folder, watched: None, watcher: None, seen: Arc::default(), said: false };
        watch.begin();
        watch
    }

    /// Starts to watch. Called again if the folder appears later than the host, or is replaced.
    fn begin(&mut self) {
        let seen = Arc::clone(&self.seen);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| seen.take(event));
        let watching = watcher.and_then(|mut watcher| {
            // Do not watch subfolders: they may be large or unreadable. The periodic scan sees changes in them.
            watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        self.watched = identity(&self.folder);
        self.watcher = match watching {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                if self.watched.is_some() && !self.said {
                    self.said = true;
                    let (folder, seconds) = (self.folder.display(), LOOK_EVERY.as_secs());
                    info!(%error, "cannot watch {folder}: looking every {seconds} s instead");
                }
                None
            }
        };
    }

    /// Waits until something has changed and the folder is at rest. Returns after [`LOOK_EVERY`] or `at_most`
    /// in any case.
    pub(super) async fn changed(&mut self, at_most: Option<Duration>) {
        if self.watcher.is_none() || identity(&self.folder) != self.watched {
            self.begin();
        }
        let wait = at_most.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
        if tokio::time::timeout(wait, self.seen.stirred.notified()).await.is_err() {
            return;
        }
        let until_quiet = async { while tokio::time::timeout(QUIET, self.seen.stirred.notified()).await.is_ok() {} };
        let _ = tokio::time::timeout(RESTLESS_MAX, until_quiet).await;
    }

    /// Returns whether the file seems to be still being written. `age` is the time since its last write.
    pub(super) fn is_being_written(&self, path: &Path, age: Option<Duration>) -> bool {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let is_elsewhere = path.parent() != Some(&self.folder) || path.is_symlink();
        if self.watcher.is_none() || is_elsewhere || !cfg!(target_os = "linux") {
            return age.is_some_and(|age| age < COMPLETE_AFTER);
        }
        let mut writing = self.seen.writing();
        writing.retain(|_, until| *until > Instant::now());
        writing.contains_key(&path)
    }
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl FolderChanges {
    fn writing(&self) -> MutexGuard<'_, HashMap<PathBuf, Instant>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, event: notify::Result<Event>) {
        match event {
            // Reading changes nothing, and the host itself reads these files.
            Ok(Event { kind: EventKind::Access(access), .. }) if access != AccessKind::Close(AccessMode::Write) => {
                return;
            }
            Ok(Event { kind, paths, .. }) => {
                let hold = match kind {
                    EventKind::Create(CreateKind::File) => Some(MADE_MAX),
                    EventKind::Modify(ModifyKind::Data(_)) => Some(WRITING_MAX),
                    // Closed, renamed or removed: nobody writes under this name any more.
                    _ => None,
                };
                let mut writing = self.writing();
                for path in paths {
                    match hold {
                        Some(time) if writing.len() < WRITING_COUNT_MAX => {
                            writing.insert(path, Instant::now() + time);
                        }
                        Some(_) => {}
                        None => {
                            writing.remove(&path);
                        }
                    }
                }
            }
            // The watcher may have missed a change.
            Err(_) => {}
        }
        self.stirred.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;

    use testbed::eventually;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_file_is_being_written_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = FolderWatch::new(folder.path().to_owned());
        let path = folder.path().join("slow.wasm");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        watch.changed(None).await;
        assert!(watch.is_being_written(&path, None));
        file.write_all(b" and half").unwrap();
        drop(file);
        eventually(SOON, "it is closed", || !watch.is_being_written(&path, None));
        watch.changed(None).await;

        // A renamed file is complete.
        let part = folder.path().join(".part");
        fs::write(&part, "whole").unwrap();
        fs::rename(&part, folder.path().join("quick.wasm")).unwrap();
        watch.changed(None).await;
        eventually(SOON, "it is whole", || !watch.is_being_written(&folder.path().join("quick.wasm"), None));
    }

    #[tokio::test]
    async fn what_is_told_of_a_relative_folder_is_about_its_files() {
        let folder = tempfile::Builder::new().prefix("watch-").tempdir_in(".").unwrap();
        let relative = PathBuf::from(folder.path().file_name().unwrap());
        let mut watch = FolderWatch::new(relative.clone());
        let mut file = File::create(relative.join("slower.wasm")).unwrap();
        file.write_all(b"half").unwrap();
        watch.changed(None).await;
        assert!(watch.is_being_written(&relative.join("slower.wasm"), None));
    }

    #[tokio::test]
    async fn a_folder_in_the_place_of_the_watched_one_is_watched() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("plugins");
        fs::create_dir(&folder).unwrap();
        let mut watch = FolderWatch::new(folder.clone());
        let before = watch.watched;
        fs::rename(&folder, parent.path().join("old")).unwrap();
        fs::create_dir(&folder).unwrap();
        watch.changed(Some(Duration::ZERO)).await;
        assert_ne!(watch.watched, before);
        let path = folder.join("slow.wasm");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        watch.changed(None).await;
        assert!(watch.is_being_written(&path, None));
    }

    #[tokio::test]
    async fn a_link_to_elsewhere_has_settled_when_it_has_rested() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = elsewhere.path().join("a.wasm");
        fs::write(&target, "half").unwrap();
        let watch = FolderWatch::new(folder.path().to_owned());
        let link = folder.path().join("a.wasm");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(watch.is_being_written(&link, Some(Duration::from_millis(10))));
        assert!(!watch.is_being_written(&link, Some(Duration::from_secs(10))));
    }

    #[tokio::test]
    async fn a_folder_that_comes_later_is_watched() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("plugins");
        let mut watch = FolderWatch::new(folder.clone());
        assert!(watch.watcher.is_none());
        watch.changed(Some(Duration::ZERO)).await;
        fs::create_dir(&folder).unwrap();
        watch.changed(Some(Duration::ZERO)).await;
        assert!(watch.watcher.is_some());
    }

    #[tokio::test]
    async fn without_a_watcher_a_file_is_settled_when_it_has_rested() {
        let watch = FolderWatch::new(PathBuf::from("/nowhere"));
        assert!(watch.is_being_written(Path::new("/nowhere/a"), Some(Duration::from_millis(10))));
        assert!(!watch.is_being_written(Path::new("/nowhere/a"), Some(Duration::from_secs(10))));
        assert!(!watch.is_being_written(Path::new("/nowhere/a"), None), "from the future");
    }
}
