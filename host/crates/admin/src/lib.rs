//! The admin server: shows the host's condition, metrics and history over HTTP, and serves the dashboard. It also
//! performs the operations that the commands offer.
//!
//! It reads what other parts report; delivery does not know it. If it is off or broken, delivery continues.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

mod api;
mod depths;
mod exposition;
mod follower;
mod guard;
mod health;
mod metrics;
mod page;
mod process;
mod refusal;
mod samples;
mod server;
mod streams;
mod token;

use std::path::PathBuf;
use std::sync::Arc;

use broker::BrokerUrl;
use config::HostConfig;
use dead_letters::DeadLetterService;
use delivery::{DeliveryState, DeliveryStatus, Runner};
use jiff::Timestamp;
use journal::Journal;
use sandbox::SharedInstancePermits;
use supervisor::control::{self, PluginState};
use telemetry::log_writer::LogStatus;
use telemetry::metrics::Metrics;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::depths::LastDepths;
use crate::follower::Follower;
use crate::health::{Signs, reasons};
use crate::samples::Samples;
use crate::server::Listening;
pub use crate::server::listen;
use crate::streams::Streams;

/// Maximum number of concurrent journal queries. Further ones wait.
const QUESTIONS_MAX: usize = 4;

/// The parts of the host that the server shows and controls.
pub struct Sources {
    pub config: Arc<HostConfig>,
    pub broker: BrokerUrl,
    pub control: control::Server,
    pub status: Arc<DeliveryStatus>,
    pub metrics: Metrics,
    pub log: LogStatus,
    pub instance_permits: SharedInstancePermits,
    pub journal: Journal,
    /// `None`: there is no folder for one.
    pub journal_file: Option<PathBuf>,
    /// Cancelled when the host is asked to stop.
    pub stop: CancellationToken,
}

/// The admin server and its own state.
pub struct Admin {
    pub sources: Sources,
    started_at: Timestamp,
    depths: LastDepths,
    samples: Samples,
    streams: Streams,
    follower: Arc<Follower>,
    /// Limits concurrent journal queries.
    questions: Semaphore,
    letters: Arc<DeadLetterService>,
    /// Operations that run to completion even if their client disconnects.
    tasks: TaskTracker,
}

impl Admin {
    pub fn new(sources: Sources) -> Arc<Self> {
        Arc::new(Self {
            started_at: Timestamp::now(),
            depths: LastDepths::default(),
            samples: Samples::new(),
            streams: Streams::new(sources.stop.clone()),
            follower: Arc::new(Follower::new()),
            questions: Semaphore::new(QUESTIONS_MAX),
            letters: Arc::new(DeadLetterService::new(Arc::clone(&sources.config), sources.broker.clone())),
            tasks: TaskTracker::new(),
            sources,
        })
    }

    /// Runs the server for as long as the future is polled.
    pub async fn run(self: Arc<Self>, listening: Listening) {
        let follow = async {
            if let Some(file) = &self.sources.journal_file {
                Arc::clone(&self.follower).run(file).await;
            }
        };
        tokio::join!(
            listening.serve(Arc::clone(&self)),
            depths::watch(&self),
            samples::take(Arc::clone(&self)),
            self.letters.tidy(),
            follow
        );
    }

    /// Returns why the host is not ready; empty if it is.
    pub fn reasons(&self) -> Vec<String> {
        let Sources { config, control, .. } = &self.sources;
        let not_loaded: Vec<_> = control
            .list()
            .into_iter()
            .filter(|report| report.state == PluginState::NotLoaded)
            .map(|report| (report.name, report.problem.unwrap_or_default()))
            .collect();
        let runners = control.registry.runners();
        let no_queue = |runner: &Arc<Runner>| Some((runner.name.to_string(), runner.no_queue()?));
        let no_queue: Vec<_> = runners.iter().filter_map(no_queue).collect();
        reasons(&Signs {
            is_stopping: self.sources.stop.is_cancelled(),
            plugins: runners.len(),
            not_loaded: &not_loaded,
            no_queue: &no_queue,
            broker: &self.sources.broker,
            queue: config.source.names.source(),
            folder: &config.plugins,
            delivery: &self.sources.status.look(),
        })
    }

    pub fn delivery(&self) -> DeliveryState {
        self.sources.status.look()
    }

    pub fn runs_no_plugin(&self) -> bool {
        self.sources.control.registry.runners().is_empty()
    }
}

/// Formats a time as all answers show it.
fn rfc_3339(at: Timestamp) -> String {
    format!("{at:.3}")
}
