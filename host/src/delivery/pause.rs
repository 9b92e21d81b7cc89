//! A plugin that is paused, because it said that it is misconfigured, is resumed when its files
//! change.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tracing::warn;

use crate::config::Policies;
use crate::delivery::runner::Runner;
use crate::delivery::worker::Worker;
use crate::plugin::{Loader, load_file};

/// Between two looks at the files of a paused plugin.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When each file was written, and how long it is.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// Goes on for as long as it is polled.
pub(super) async fn watch_paused(worker: &Worker, loader: &Loader, runner: &Runner, policies: &Policies) {
    let mut changed = runner.subscribe();
    let mut known = stamp(&runner.file);
    loop {
        while !runner.is_paused() {
            // The runner holds the sender, so there is no error.
            let _ = changed.changed().await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let now = stamp(&runner.file);
        if now == known {
            continue;
        }
        known = now;
        match load_file(loader, &runner.file, policies).await {
            Ok(Some(plugin)) => {
                if let Some(change) = runner.replace(plugin) {
                    worker.herald.announce(&worker.broker, &worker.source, runner, change, None).await;
                }
            }
            Ok(None) => warn!(plugin = &*runner.name, "its toml switches it off: it stays paused"),
            Err(problem) => warn!(plugin = &*runner.name, "{problem}; it stays paused"),
        }
    }
}

fn stamp(file: &Path) -> Stamp {
    [file.to_owned(), file.with_extension("toml")].map(|file| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}
