//! Runs delivery over one session with the broker: the source consumer and the backlog of every plugin.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, BrokerError, Consumer, Source};
use event::Rules;
use telemetry::metrics::HostMetrics;
use telemetry::spans::Spans;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::backlog::Backlog;
use crate::duplicates::Duplicates;
use crate::health_events::HealthEvents;
use crate::observer::DeliveryObserver;
use crate::quarantine::Quarantine;
use crate::queues::{self, MadeQueues};
use crate::registry::{Registry, Runners};
use crate::route_cache::RouteCache;
use crate::runner::Runner;
use crate::source::{SourceConsumer, UnmatchedTypes};
use crate::stall::{self, SourceProgress};
use crate::status::DeliveryStatus;
use crate::worker::Worker;

/// Pause before declaring a refused queue again.
const REFUSED_PAUSE: Duration = Duration::from_secs(15);

/// Why delivery stopped.
#[derive(Debug)]
pub enum Ended {
    /// The host was asked to stop.
    Stopped {
        /// Messages that went back to their queues because they were not done in time.
        given_back: usize,
    },
    /// The session is lost.
    Lost(BrokerError),
}

/// The context of delivery. It outlives sessions.
#[derive(Clone)]
pub struct Dispatcher {
    pub source: Arc<Source>,
    pub rules: Arc<Rules>,
    pub registry: Arc<Registry>,
    /// The plugin folder.
    pub folder: Arc<Path>,
    pub duplicates: Duplicates,
    pub unmatched_types: UnmatchedTypes,
    pub prefetch: u16,
    /// Read when the stop comes, so that a reload still counts.
    pub drain_timeout: watch::Receiver<Duration>,
    pub observer: Arc<dyn DeliveryObserver>,
    pub status: Arc<DeliveryStatus>,
    pub quarantine: Quarantine,
    pub spans: Spans,
    pub metrics: Arc<HostMetrics>,
}

/// An open session.
pub struct Opened {
    pub broker: Broker,
    /// The consumer of the source's queue, unless there was no plugin yet.
    pub consumer: Option<Consumer>,
    /// The plugins whose queues are known to exist.
    pub declared: Vec<String>,
}

impl Dispatcher {
    /// Delivers until `stop` or until the session is lost. After `stop` it takes no more messages, lets the
    /// ones in flight finish within the drain timeout, and gives back the rest.
    pub async fn run(&self, opened: Opened, stop: &CancellationToken) -> Ended {
        let give_up = CancellationToken::new();
        let drain_timeout = self.drain_timeout.clone();
        let deadline = async {
            stop.cancelled().await;
            let drain_timeout = *drain_timeout.borrow();
            tokio::time::sleep(drain_timeout).await;
            debug!("the drain timeout has passed");
            give_up.cancel();
            std::future::pending::<Infallible>().await
        };
        let Opened { broker, consumer, declared } = opened;
        let progress = Arc::new(SourceProgress::default());
        let _open = self.status.opened(broker.clone(), Arc::clone(&progress));
        let caution = self.quarantine.begin(stop.clone());
        let mut session = Session {
            dispatcher: self,
            worker: Worker {
                broker: broker.clone(),
                source: Arc::clone(&self.source),
                health_events: HealthEvents::new(),
                observer: Arc::clone(&self.observer),
                spans: self.spans.clone(),
                metrics: Arc::clone(&self.metrics),
                caution: Arc::clone(&caution),
            },
            members: Arc::new(Registry::new()),
            serving: Vec::new(),
            parts: JoinSet::new(),
            joining: JoinSet::new(),
            awaited: Vec::new(),
            progress,
            stop,
            give_up: &give_up,
        };
        let registered = self.registry.subscribe();
        session.follow(&declared);
        session.start(consumer);
        let ended = tokio::select! {
            ended = session.work(registered) => ended,
            never = deadline => match never {},
            never = caution.watch_over() => match never {},
        };
        if let Ended::Lost(_) = &ended {
            self.quarantine.lost(caution.failed().or_else(|| broker.broken_by_message()));
        }
        ended
    }
}

/// A running session. Dropping it, when it is lost, ends its tasks. Their messages are offered again on the
/// next session.
struct Session<'a> {
    dispatcher: &'a Dispatcher,
    worker: Worker,
    /// The plugins that events may go to, because their queues exist. Follows the registry.
    members: Arc<Registry>,
    /// Each member, with the token that ends its service.
    serving: Vec<(Arc<Runner>, CancellationToken)>,
    parts: JoinSet<Result<usize, BrokerError>>,
    /// Queue declarations in progress.
    joining: JoinSet<Result<Joined, BrokerError>>,
    awaited: Vec<(Arc<Runner>, CancellationToken)>,
    progress: Arc<SourceProgress>,
    stop: &'a CancellationToken,
    give_up: &'a CancellationToken,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        for (runner, _) in &self.serving {
            runner.serve(false);
        }
    }
}

impl Session<'_> {
    /// Starts to consume the source's queue, and to watch for stalls.
    fn start(&mut self, consumer: Option<Consumer>) {
        let progress = Arc::clone(&self.progress);
        let source_consumer = Arc::new(SourceConsumer {
            worker: self.worker.clone(),
            rules: Arc::clone(&self.dispatcher.rules),
            members: Arc::clone(&self.members),
            route_cache: RouteCache::default(),
            registry: Arc::clone(&self.dispatcher.registry),
            prefetch: self.dispatcher.prefetch,
            folder: Arc::clone(&self.dispatcher.folder),
            duplicates: self.dispatcher.duplicates.clone(),
            unmatched_types: self.dispatcher.unmatched_types.clone(),
            progress: Arc::clone(&progress),
        });
        self.parts.spawn(source_consumer.run(consumer, self.stop.clone(), self.give_up.clone()));
        let (stop, worker, prefetch) = (self.stop.clone(), self.worker.clone(), self.dispatcher.prefetch);
        self.parts.spawn(async move {
            let queue = worker.source.names.source();
            let watch = stall::watch(&worker.broker, queue, &progress, prefetch);
            stop.run_until_cancelled(watch).await.map_or(Ok(0), Err)
        });
    }

    async fn work(&mut self, mut registered: watch::Receiver<Runners>) -> Ended {
        let mut given_back = 0;
        let caution = Arc::clone(&self.worker.caution);
        let failed = |error: &dyn std::fmt::Display| {
            caution.host_failed("a task of the host failed");
            BrokerError::Lost(format!("the host failed in it: {error}"))
        };
        loop {
            tokio::select! {
                part = self.parts.join_next() => match part {
                    Some(Ok(Ok(count))) => given_back += count,
                    Some(Ok(Err(error))) => return Ended::Lost(error),
                    Some(Err(error)) => return Ended::Lost(failed(&error)),
                    None => return Ended::Stopped { given_back },
                },
                Some(joined) = self.joining.join_next() => match joined {
                    Ok(Ok(joined)) => self.joined(joined),
                    Ok(Err(error)) => return Ended::Lost(error),
                    Err(error) => return Ended::Lost(failed(&error)),
                },
                Ok(()) = registered.changed() => {
                    registered.mark_unchanged();
                    self.follow(&[]);
                }
            }
        }
    }

    /// Admits new plugins whose queues were declared, and retries the refused ones.
    fn joined(&mut self, joined: Joined) {
        let Joined { made, refused } = joined;
        self.awaited.retain(|(other, _)| !made.iter().any(|runner| Arc::ptr_eq(other, runner)));
        // Log this in addition to the load: events published between the two have passed the plugin by.
        for runner in self.admit(&made) {
            info!(plugin = &*runner.name, "gets events from now on");
        }
        for (runner, problem) in refused {
            // The plugin may have gone in the meantime.
            if let Some((_, stop)) = self.awaited.iter().find(|(other, _)| Arc::ptr_eq(other, &runner)) {
                self.joining.spawn(join_later(self.worker.clone(), runner, problem, stop.clone()));
            }
        }
    }

    /// Follows the registry. Plugins in `declared` need no queue declared.
    fn follow(&mut self, declared: &[String]) {
        let registry = &self.dispatcher.registry;
        let (stay, leave) =
            std::mem::take(&mut self.serving).into_iter().partition(|(runner, _)| registry.holds(runner));
        self.serving = stay;
        for (runner, service) in leave {
            self.members.remove(&runner.name);
            runner.serve(false);
            service.cancel();
        }
        for (_, joining) in self.awaited.extract_if(.., |(runner, _)| !registry.holds(runner)) {
            joining.cancel();
        }
        let (mut there, mut new) = (Vec::new(), Vec::new());
        for runner in registry.runners().iter() {
            if self.members.holds(runner) || self.awaited.iter().any(|(other, _)| Arc::ptr_eq(other, runner)) {
                continue;
            }
            if declared.iter().any(|name| **name == *runner.name) {
                there.push(Arc::clone(runner));
            } else {
                self.awaited.push((Arc::clone(runner), self.stop.child_token()));
                new.push(Arc::clone(runner));
            }
        }
        self.admit(&there);
        if !new.is_empty() {
            self.joining.spawn(join(self.worker.clone(), new));
        }
    }

    /// Starts delivery to these runners, all at once, except those that have it already or have left the
    /// registry. Returns the ones started.
    fn admit(&mut self, runners: &[Arc<Runner>]) -> Vec<Arc<Runner>> {
        let may = |runner: &&Arc<Runner>| self.dispatcher.registry.holds(runner) && !self.members.holds(runner);
        if self.stop.is_cancelled() {
            return Vec::new();
        }
        let new: Vec<_> = runners.iter().filter(may).cloned().collect();
        for runner in &new {
            let service = self.stop.child_token();
            let backlog = Backlog {
                worker: self.worker.clone(),
                rules: Arc::clone(&self.dispatcher.rules),
                runner: Arc::clone(runner),
            };
            self.parts.spawn(serve(backlog, service.clone(), self.give_up.clone()));
            self.serving.push((Arc::clone(runner), service));
        }
        self.members.put_all(new.clone());
        for runner in &new {
            runner.serve(true);
        }
        new
    }
}

/// Consumes one plugin's backlog, and announces changes of its health that happened outside the session.
async fn serve(backlog: Backlog, stop: CancellationToken, give_up: CancellationToken) -> Result<usize, BrokerError> {
    let (worker, runner) = (backlog.worker.clone(), Arc::clone(&backlog.runner));
    let tell = async move {
        loop {
            let news = runner.news().await;
            worker.health_events.announce(&worker.broker, &worker.source, &runner, news, None).await;
        }
    };
    tokio::select! {
        ended = backlog.run(stop, give_up) => ended,
        () = tell => Ok(0),
    }
}

/// The result of declaring the queues of new plugins.
struct Joined {
    made: Vec<Arc<Runner>>,
    /// Each with the reason.
    refused: Vec<(Arc<Runner>, String)>,
}

/// Declares the queues of new plugins.
async fn join(worker: Worker, runners: Vec<Arc<Runner>>) -> Result<Joined, BrokerError> {
    let plugins: Vec<_> = runners.iter().map(|runner| &*runner.name).collect();
    let MadeQueues { there, refused, warnings } = queues::make(&worker.broker, &worker.source.names, &plugins).await?;
    for warning in warnings {
        warn!("{warning}");
    }
    let runner = |name: &str| runners.iter().find(|runner| *runner.name == *name).cloned();
    Ok(Joined {
        made: there.into_iter().filter_map(runner).collect(),
        refused: refused.into_iter().filter_map(|(name, problem)| Some((runner(name)?, problem))).collect(),
    })
}

/// Declares a refused queue again and again, until it succeeds or `stop`.
async fn join_later(
    worker: Worker,
    runner: Arc<Runner>,
    mut problem: String,
    stop: CancellationToken,
) -> Result<Joined, BrokerError> {
    let mut said = String::new();
    loop {
        runner.has_no_queue(&problem);
        if problem != said {
            warn!(
                plugin = &*runner.name,
                "it gets no events yet, for its queue cannot be made: {problem}; trying again"
            );
            said.clone_from(&problem);
        }
        if stop.run_until_cancelled(tokio::time::sleep(REFUSED_PAUSE)).await.is_none() {
            return Ok(Joined { made: Vec::new(), refused: Vec::new() });
        }
        let mut joined = join(worker.clone(), vec![Arc::clone(&runner)]).await?;
        match joined.refused.pop() {
            Some((_, refusal)) => problem = refusal,
            None => return Ok(joined),
        }
    }
}
