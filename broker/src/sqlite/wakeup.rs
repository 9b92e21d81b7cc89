//! Wakes the consumers of other processes, by writing to a file that they watch.
//!
//! A wakeup only saves time. A consumer that misses one polls a second later.

use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// The wakeup file of one database.
#[derive(Debug)]
pub(super) struct Wakeup {
    path: PathBuf,
    file: Option<File>,
    watcher: Option<RecommendedWatcher>,
    woken: Arc<Notify>,
}

impl Wakeup {
    /// Creates the wakeup for the database at this path.
    pub(super) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-doorbell");
        Self { path: path.into(), file: None, watcher: None, woken: Arc::new(Notify::new()) }
    }

    /// Wakes the other processes. Call it after the commit: they look at once.
    pub(super) fn wake_others(&mut self) {
        if self.file.is_none() {
            self.file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            let written = file.rewind().and_then(|()| file.write_all(b"!"));
            if let Err(error) = written {
                tracing::debug!(%error, path = %self.path.display(), "the doorbell does not ring; consumers look once a second");
                self.file = None;
            }
        }
    }

    /// Starts to listen. On a system that cannot watch files, consumers poll once a second.
    pub(super) fn listen(&mut self) {
        if self.watcher.is_some() {
            return;
        }
        let woken = Arc::clone(&self.woken);
        // Create the file first: only an existing file can be watched.
        let listening = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)
            .map_err(notify::Error::io)
            .and_then(|_| {
                let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                    // Opening and closing the file also cause events.
                    if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                        woken.notify_one();
                    }
                })?;
                watcher.watch(&self.path, RecursiveMode::NonRecursive)?;
                Ok(watcher)
            });
        match listening {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                tracing::debug!(%error, path = %self.path.display(), "cannot watch the doorbell; looking once a second");
            }
        }
    }

    /// Resolves once a wakeup has arrived since the last call.
    pub(super) fn woken(&self) -> impl Future<Output = ()> + use<> {
        let woken = Arc::clone(&self.woken);
        async move { woken.notified().await }
    }
}
