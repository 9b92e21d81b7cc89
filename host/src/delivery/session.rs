//! A session of dispatch: the source's consumer and every plugin's backlog, over one session with
//! the broker.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, BrokerError, Consumer, Source};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::config::Policies;
use crate::delivery::backlog::Backlog;
use crate::delivery::duplicates::Duplicates;
use crate::delivery::herald::Herald;
use crate::delivery::pause::watch_paused;
use crate::delivery::pump::pump;
use crate::delivery::runner::Runner;
use crate::delivery::source::Intake;
use crate::delivery::stall::{self, Progress};
use crate::delivery::worker::Worker;
use crate::event::Rules;
use crate::plugin::Loader;

/// Why dispatch stopped.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was asked to.
    Stopped {
        /// Messages that went back to their queues, because they were not done in time.
        given_back: usize,
    },
    /// The session is lost.
    Lost(BrokerError),
}

/// What dispatch works with. It outlives sessions.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) source: Arc<Source>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) policies: Policies,
    pub(crate) loader: Arc<Loader>,
    pub(crate) runners: Arc<[Arc<Runner>]>,
    pub(crate) duplicates: Duplicates,
    pub(crate) prefetch: u16,
    pub(crate) drain_timeout: Duration,
}

impl Dispatcher {
    /// Works until it is stopped or the session is lost. When stopped it takes no more, lets what
    /// is in flight finish within the drain timeout, and gives back the rest.
    pub(crate) async fn run(&self, broker: Broker, consumer: Consumer, stop: &CancellationToken) -> Ended {
        // Dropping this set, when the session is lost, ends what belongs to it: those messages come
        // again on the next one.
        let mut parts = JoinSet::new();
        let give_up = CancellationToken::new();
        let progress = Arc::new(Progress::default());
        let worker = Worker { broker, source: Arc::clone(&self.source), herald: Herald::new() };
        let intake = Intake {
            worker: worker.clone(),
            rules: Arc::clone(&self.rules),
            runners: Arc::clone(&self.runners),
            duplicates: self.duplicates.clone(),
            progress: Arc::clone(&progress),
        };
        {
            let (stop, give_up) = (stop.clone(), give_up.clone());
            parts.spawn(async move {
                let enough = stop.cancelled();
                pump(consumer, enough, &give_up, |delivery| intake.clone().see_through(delivery)).await
            });
        }
        {
            let (stop, worker, prefetch) = (stop.clone(), worker.clone(), self.prefetch);
            parts.spawn(async move {
                let queue = worker.source.names.source();
                let watch = stall::watch(&worker.broker, queue, &progress, prefetch);
                stop.run_until_cancelled(watch).await.map_or(Ok(0), Err)
            });
        }
        for runner in self.runners.iter() {
            let backlog =
                Backlog { worker: worker.clone(), rules: Arc::clone(&self.rules), runner: Arc::clone(runner) };
            parts.spawn(backlog.run(stop.clone(), give_up.clone()));
            let (worker, loader, runner, policies) =
                (worker.clone(), Arc::clone(&self.loader), Arc::clone(runner), self.policies);
            let stop = stop.clone();
            parts.spawn(async move {
                let watch = watch_paused(&worker, &loader, &runner, &policies);
                let _ = stop.run_until_cancelled(watch).await;
                Ok(0)
            });
        }
        let drain_timeout = self.drain_timeout;
        let deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(drain_timeout).await;
            debug!("the drain timeout has passed");
            give_up.cancel();
            std::future::pending::<Infallible>().await
        };
        let work = async {
            let mut given_back = 0;
            while let Some(part) = parts.join_next().await {
                match part {
                    Ok(Ok(count)) => given_back += count,
                    Ok(Err(error)) => return Ended::Lost(error),
                    Err(error) => return Ended::Lost(BrokerError::Lost(format!("the host failed in it: {error}"))),
                }
            }
            Ended::Stopped { given_back }
        };
        tokio::select! {
            ended = work => ended,
            never = deadline => match never {},
        }
    }
}
