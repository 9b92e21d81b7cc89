//! The admin surface is what a host shows of itself over HTTP: how it is, what it counts, what it did, and a page
//! for people. It hands on what an operator may do: the same that the commands do.
//!
//! It reads what the others say of themselves; delivery does not know that it exists. Without it, or with it broken,
//! events go their way.

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

/// Questions to the journal that are answered at once; the others wait.
const QUESTIONS_MAX: usize = 4;

/// What there is to show and to act upon.
pub struct Sources {
    pub config: Arc<HostConfig>,
    pub broker: BrokerUrl,
    pub control: control::Server,
    pub status: Arc<DeliveryStatus>,
    pub metrics: Metrics,
    pub log: LogStatus,
    pub instance_permits: SharedInstancePermits,
    pub journal: Journal,
    /// `None`: there is no place for one.
    pub journal_file: Option<PathBuf>,
    /// The host is asked to stop.
    pub stop: CancellationToken,
}

/// The surface, with what it remembers for itself.
pub struct Admin {
    pub sources: Sources,
    started_at: Timestamp,
    depths: LastDepths,
    samples: Samples,
    streams: Streams,
    follower: Arc<Follower>,
    /// Questions to the journal at once.
    questions: Semaphore,
    letters: Arc<DeadLetterService>,
    /// What goes on to its end, whether or not who asked for it still waits.
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

    /// Works for as long as it is polled.
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

    /// Why the host is not ready; nothing if it is.
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

/// As all times are shown.
fn rfc_3339(at: Timestamp) -> String {
    format!("{at:.3}")
}
