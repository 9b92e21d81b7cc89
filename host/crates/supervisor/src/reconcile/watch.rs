//! Watches the plugin folder: says when something in it may have changed, and which files somebody is
//! just writing.
//!
//! Where the system cannot watch a folder (a network file system, a container's mount) a look every few
//! seconds takes its place.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tracing::info;

/// A look without any sign that there is something to see.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Changes that come closer together are taken for one: a plugin and its toml, say.
const QUIET: Duration = Duration::from_millis(150);
/// But a folder that never comes to rest is looked at all the same.
const RESTLESS_MAX: Duration = Duration::from_secs(2);
/// Of a file that was written to and not closed since: its writer is taken for dead after this.
const WRITING_MAX: Duration = Duration::from_secs(30);
/// Of one that was made and not written to since. It may be a link, which nobody closes.
const MADE_MAX: Duration = Duration::from_secs(1);
/// Of a file on a system that does not say when it is closed.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Files that are remembered as being written.
const WRITING_COUNT_MAX: usize = 1000;

pub(super) struct FolderWatch {
    folder: PathBuf,
    /// Which folder that was when the watch began: another may take its place.
    watched: Option<(u64, u64)>,
    watcher: Option<RecommendedWatcher>,
    seen: Arc<Seen>,
    /// That it cannot be watched.
    said: bool,
}

#[derive(Default)]
struct Seen {
    stirred: Notify,
    /// Until when each is believed to be in somebody's hands.
    writing: Mutex<HashMap<PathBuf, Instant>>,
}

impl FolderWatch {
    pub(super) fn new(folder: PathBuf) -> Self {
        // The system tells absolute paths.
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let mut watch = Self { folder, watched: None, watcher: None, seen: Arc::default(), said: false };
        watch.begin();
        watch
    }

    /// The folder may come later than the host, or go and come again.
    fn begin(&mut self) {
        let seen = Arc::clone(&self.seen);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| seen.take(event));
        let watching = watcher.and_then(|mut watcher| {
            // Not what lies below: it may be large, or not be readable. That is seen at the usual look.
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

    /// Waits until something may have changed, and until that is over; at the latest after the usual
    /// look, or `at_most`.
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

    /// Whether somebody seems to be writing this file; `age` is how long ago it was written to.
    pub(super) fn is_being_written(&self, path: &Path, age: Option<Duration>) -> bool {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let is_elsewhere = path.parent() != Some(&self.folder) || path.is_symlink();
        if self.watcher.is_none() || is_elsewhere || !cfg!(target_os = "linux") {
            return age.is_some_and(|age| age < SETTLED_AFTER);
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

impl Seen {
    fn writing(&self) -> MutexGuard<'_, HashMap<PathBuf, Instant>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, event: notify::Result<Event>) {
        match event {
            // Reading is no change; we do it ourselves.
            Ok(Event { kind: EventKind::Access(access), .. }) if access != AccessKind::Close(AccessMode::Write) => {
                return;
            }
            Ok(Event { kind, paths, .. }) => {
                let hold = match kind {
                    EventKind::Create(CreateKind::File) => Some(MADE_MAX),
                    EventKind::Modify(ModifyKind::Data(_)) => Some(WRITING_MAX),
                    // Closed, renamed, removed: nobody writes by that name any more.
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
            // It may have missed something.
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

        // One that comes by another name is whole.
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
