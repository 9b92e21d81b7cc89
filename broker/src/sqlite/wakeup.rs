//! How one process tells the others that there is something new: it writes to a file that they watch.
//!
//! The bell only saves time. Whoever misses it looks by itself a second later.

use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// The bell of one database.
#[derive(Debug)]
pub(super) struct Wakeup {
    path: PathBuf,
    file: Option<File>,
    watcher: Option<RecommendedWatcher>,
    rung: Arc<Notify>,
}

impl Wakeup {
    /// Of the database at this path.
    pub(super) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-doorbell");
        Self { path: path.into(), file: None, watcher: None, rung: Arc::new(Notify::new()) }
    }

    /// After a commit, not before: who hears it looks at once.
    pub(super) fn ring(&mut self) {
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

    /// Starts to listen. Without a system that watches files there is the look once a second.
    pub(super) fn listen(&mut self) {
        if self.watcher.is_some() {
            return;
        }
        let rung = Arc::clone(&self.rung);
        let listening = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)
            .map_err(notify::Error::io)
            .and_then(|_| {
                let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                    // Opening and closing the file are events as well.
                    if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                        rung.notify_one();
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

    /// Resolves once it has rung since the last time.
    pub(super) fn rung(&self) -> impl Future<Output = ()> + use<> {
        let rung = Arc::clone(&self.rung);
        async move { rung.notified().await }
    }
}
