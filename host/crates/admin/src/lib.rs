//! The admin server: shows the host's condition, metrics and history over HTTP, and serves the dashboard. It also
//! performs the operations that the commands offer, which reach it by the control socket.
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

use dead_letters::DeadLetterService;
use http::StatusCode;
use jiff::Timestamp;
use journal::Journal;
use sandbox::SharedInstancePermits;
use supervisor::control::ControlSocket;
use supervisor::readiness::RunningHost;
use supervisor::reload::Reloader;
use telemetry::log_writer::LogStatus;
use telemetry::metrics::Metrics;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::depths::LastDepths;
use crate::follower::Follower;
use crate::refusal::Refusal;
use crate::samples::Samples;
use crate::server::Listening;
pub use crate::server::listen;
use crate::streams::Streams;

/// Maximum number of concurrent journal queries. Further ones wait.
const QUESTIONS_MAX: usize = 4;

/// The parts of the host that the server shows and controls.
pub struct Sources {
    pub host: RunningHost,
    pub settings: Arc<Reloader>,
    pub metrics: Metrics,
    pub log: LogStatus,
    pub instance_permits: SharedInstancePermits,
    pub journal: Journal,
    /// `None`: there is no folder for one.
    pub journal_file: Option<PathBuf>,
}

/// The admin server and its own state.
pub struct Admin {
    sources: Sources,
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
            streams: Streams::new(sources.host.stop.clone()),
            follower: Arc::new(Follower::new()),
            questions: Semaphore::new(QUESTIONS_MAX),
            letters: Arc::new(DeadLetterService::new(Arc::clone(&sources.host.config), sources.host.broker.clone())),
            tasks: TaskTracker::new(),
            sources,
        })
    }

    /// Serves the listeners that there are, for as long as the future is polled.
    pub async fn run(self: Arc<Self>, listening: Option<Listening>, socket: Option<ControlSocket>) {
        let follow = async {
            if let Some(file) = &self.sources.journal_file {
                Arc::clone(&self.follower).run(file).await;
            }
        };
        // Commands ask for neither queue depths nor samples, so a host without the dashboard need not collect them.
        let is_shown = listening.is_some();
        let collect = async {
            if is_shown {
                tokio::join!(depths::watch(&self), samples::take(Arc::clone(&self)));
            }
        };
        tokio::join!(server::serve(Arc::clone(&self), listening, socket), collect, self.letters.tidy(), follow);
    }

    /// Runs `work` to completion even if the client disconnects.
    async fn complete<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, Refusal> {
        self.tasks
            .spawn(work)
            .await
            .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the host failed at it: {error}")))
    }
}

/// Formats a time as all answers show it.
fn rfc_3339(at: Timestamp) -> String {
    format!("{at:.3}")
}
