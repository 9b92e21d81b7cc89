//! Applies changed settings while the host runs.
//!
//! SIGHUP or `notify-host reload` reads the layers again: the same flags and variables, and the file as it is
//! now. A faulty configuration changes nothing. Settings that a running host cannot change are reported and
//! wait for the next start.

use std::sync::Arc;

use config::{Layers, Policies, Resolved};
use delivery::Duplicates;
use journal::Journal;
use serde::{Deserialize, Serialize};
use state::file::apart;
use telemetry::LogLevelHandle;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The result of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Settings that changed, each as `retry.attempts (8 → 20)`.
    pub taken: Vec<String>,
    /// Settings that changed but need a restart.
    pub restart: Vec<String>,
}

/// New policies from the host's file. `done` is signalled once every plugin has them.
pub struct NewPolicies {
    pub policies: Policies,
    pub done: oneshot::Sender<()>,
}

/// Everything that a reload can change.
pub struct Reloader {
    pub layers: Layers,
    /// The settings that the host started with. They apply where a running host cannot change.
    pub started: Resolved,
    /// The settings that apply now where a running host can change.
    pub now: Mutex<Resolved>,
    pub log_level: LogLevelHandle,
    pub policies: mpsc::Sender<NewPolicies>,
    pub journal: Journal,
    pub duplicates: Duplicates,
    pub drain_timeout: watch::Sender<std::time::Duration>,
}

impl Reloader {
    /// Reloads the settings. The error lists every fault.
    pub async fn reload(&self) -> Result<Reloaded, String> {
        // The lock makes concurrent reloads run one after another.
        let mut now = self.now.lock().await;
        let layers = self.layers.clone();
        let later = match apart(move || layers.resolve()).await {
            Ok(later) => later,
            Err(problems) => {
                let problems = String::from(problems);
                warn!("the settings stay as they are: {}", problems.replace('\n', "; "));
                return Err(problems);
            }
        };
        let (changes, since_start) = (now.changes(&later), self.started.changes(&later));
        let config = &later.config;
        self.log_level.set(config.log_level);
        self.drain_timeout.send_replace(config.drain_timeout);
        self.duplicates.remember_for(config.duplicates_window);
        self.journal.keep(config.journal);
        if config.policies != now.config.policies {
            let (done, all_have_them) = oneshot::channel();
            let told = self.policies.send(NewPolicies { policies: config.policies.clone(), done }).await;
            if told.is_err() || all_have_them.await.is_err() {
                return Err("the host is stopping".to_owned());
            }
        }
        *now = later;
        let reloaded = Reloaded { taken: changes.live, restart: since_start.restart };
        match reloaded.taken.as_slice() {
            [] => info!("the settings were read again: nothing that a running host can change is different"),
            taken => info!("the settings were read again: {}", taken.join(", ")),
        }
        if !reloaded.restart.is_empty() {
            warn!("these settings need a restart: {}", reloaded.restart.join(", "));
        }
        Ok(reloaded)
    }
}

/// Reloads at each SIGHUP, until `stop`.
#[cfg(unix)]
pub fn on_hangup(reloader: Arc<Reloader>, stop: CancellationToken) -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    // From here on, SIGHUP no longer ends the process.
    let mut hangups = signal(SignalKind::hangup())?;
    Ok(async move {
        while let Some(Some(())) = stop.run_until_cancelled(hangups.recv()).await {
            // Ignore the result: `reload` has logged it.
            let _ = reloader.reload().await;
        }
    })
}
