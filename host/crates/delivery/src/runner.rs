//! A runner is a plugin as delivery sees it: with its slots, its breaker and its pace. It stays
//! when the session with the broker is lost, and when the plugin's files change.
//!
//! A runner may be there before its plugin: while the machine cannot load that, its events wait in its queue, not yet
//! routed, and nothing is taken from there.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use config::{BreakerPolicy, Policies};
use event::Event;
use sandbox::capability::Beginning;
use sandbox::{Attempt, InstancePermit, Plugin};
use telemetry::metrics::PluginMetrics;
use tokio::sync::{Semaphore, watch};
use tracing::info;

use crate::admission::{NotAdmitted, Origin};
use crate::breaker::{Breaker, BreakerDecision, Change, State};
use crate::policy::Outcome;
use crate::route_reason::Rules;
use crate::slots::Slots;
use crate::throttle::{ClockReading, Throttle, ThrottleChange, ThrottleDecision, ThrottleState, Why};
use crate::wait_queue::WaitQueue;

/// Of all runners.
static REPLACEMENTS: AtomicU64 = AtomicU64::new(0);

/// Another number whenever a plugin has been replaced by a new version of it: what was made of their subscriptions
/// before is old then.
pub(super) fn replacements() -> u64 {
    REPLACEMENTS.load(Ordering::Acquire)
}

pub struct Runner {
    pub name: Arc<str>,
    /// Beside which the operator would look for it.
    pub toml: PathBuf,
    pub metrics: Arc<PluginMetrics>,
    /// `None`: it has not been loaded yet. Once there is one there always is.
    current: RwLock<Option<Arc<Version>>>,
    pub(super) wait_queue: WaitQueue,
    breaker: Mutex<Breaker>,
    /// Where both are locked, the breaker is first.
    throttle: Mutex<Throttle>,
    /// By the rate, what comes from the backlog has its turn one after the other, in the order in which it came.
    pub(super) turns: Semaphore,
    /// What a session must still tell.
    news: Mutex<Option<Change>>,
    in_flight: AtomicUsize,
    /// Why the last call failed that did.
    last_failure: Mutex<Option<String>>,
    /// Whether a session hands it events.
    served: watch::Sender<bool>,
    /// Why the broker makes no queue for it.
    no_queue: Mutex<Option<String>>,
    /// Changes whenever breaker or pace may judge differently.
    pub(super) changed: watch::Sender<()>,
}

/// A plugin as it is now; a changed one has slots of its own.
pub(super) struct Version {
    pub(super) plugin: Arc<Plugin>,
    pub(super) rules: Rules,
    pub(super) slots: Slots,
}

impl Version {
    fn new(plugin: Plugin) -> Self {
        Self { slots: Slots::new(plugin.limits.concurrency), rules: Rules::of(&plugin), plugin: Arc::new(plugin) }
    }
}

/// How a plugin is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Well,
    /// The machine could not load it, and it is tried again.
    NotLoaded,
    /// It is left alone for a while.
    Failing,
    /// It says so itself, and waits for new files.
    Misconfigured,
    /// The operator holds it.
    Held,
    /// It has quiet hours.
    Quiet,
    /// There is more for it than its rate allows.
    RateLimited,
    /// Its log lines are its work, and the log takes none.
    LogBlocked,
}

/// The right to one attempt. Dropping it, or the attempt, gives it back.
pub(super) struct Permit {
    runner: Arc<Runner>,
    version: Arc<Version>,
    instance_permit: Option<InstancePermit>,
    probe: bool,
    /// Of the breaker, when it let this through.
    generation: u64,
    ended: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.probe && !self.ended {
            let mut breaker = self.runner.breaker();
            if breaker.generation() == self.generation {
                breaker.not_made(true);
            }
            drop(breaker);
            self.runner.changed.send_replace(());
        }
    }
}

impl Runner {
    /// A runner for a plugin that has not been loaded yet; [`Self::replace`] gives it its first version.
    pub fn new(name: Arc<str>, metrics: Arc<PluginMetrics>, toml: PathBuf) -> Self {
        let policies = Policies::default();
        Self {
            name,
            toml,
            metrics,
            news: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            last_failure: Mutex::default(),
            served: watch::Sender::new(false),
            no_queue: Mutex::default(),
            wait_queue: WaitQueue::default(),
            breaker: Mutex::new(Breaker::new(policies.breaker)),
            throttle: Mutex::new(Throttle::new(policies.throttle, ClockReading::read())),
            turns: Semaphore::new(1),
            changed: watch::Sender::new(()),
            current: RwLock::default(),
        }
    }

    /// `None`: it has not been loaded yet.
    pub fn plugin(&self) -> Option<Arc<Plugin>> {
        self.current().map(|version| Arc::clone(&version.plugin))
    }

    pub fn is_loaded(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn current(&self) -> Option<Arc<Version>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is what the right was given for.
    pub(super) fn is_current(&self, permit: &Permit) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &permit.version))
    }

    /// The one place where the right to an attempt is given.
    pub(super) fn admit(
        self: &Arc<Self>,
        origin: Origin,
        version: Arc<Version>,
        instance_permit: InstancePermit,
    ) -> Result<Permit, NotAdmitted> {
        self.look_at_log(&version.plugin)?;
        let mut breaker = self.breaker();
        let now = Instant::now();
        if let BreakerDecision::Wait(_) = breaker.look(now) {
            return Err(NotAdmitted::Unwell(breaker.ailment()));
        }
        if let ThrottleDecision::Later { why, .. } = self.turn(|throttle, now| throttle.take(origin, now)) {
            return Err(NotAdmitted::NotYet(why));
        }
        let probe = match breaker.admit(now) {
            BreakerDecision::Go => false,
            BreakerDecision::Probe => true,
            BreakerDecision::Wait(_) => return Err(NotAdmitted::Unwell(breaker.ailment())),
        };
        let generation = breaker.generation();
        Ok(Permit {
            runner: Arc::clone(self),
            version,
            instance_permit: Some(instance_permit),
            probe,
            generation,
            ended: false,
        })
    }

    /// Asks the pace whether it is the turn of a delivery.
    pub(super) fn turn(&self, ask: impl FnOnce(&mut Throttle, ClockReading) -> ThrottleDecision) -> ThrottleDecision {
        // Most plugins have neither a rate nor quiet hours; no clock need be read for them.
        if self.throttle().is_free() { ThrottleDecision::ClockReading } else { self.paced(ask) }
    }

    /// Asks the pace, and tells what is new of it.
    pub(super) fn paced<T>(&self, ask: impl FnOnce(&mut Throttle, ClockReading) -> T) -> T {
        let now = ClockReading::read();
        let mut throttle = self.throttle();
        let (was_behind, was_far) =
            (throttle.is_behind(), throttle.is_slow() && throttle.peek(now).is_far(now.instant));
        let answer = ask(&mut throttle, now);
        let is_far = throttle.is_slow() && throttle.peek(now).is_far(now.instant);
        let is_different = (was_behind, was_far) != (throttle.is_behind(), is_far);
        let news: Vec<_> = std::iter::from_fn(|| throttle.news(now)).collect();
        drop(throttle);
        if is_different {
            self.changed.send_replace(());
        }
        for news in news {
            self.tell(&news);
        }
        answer
    }

    fn tell(&self, news: &ThrottleChange) {
        let plugin = &*self.name;
        match news {
            ThrottleChange::Quiet { end } => info!(plugin, "quiet hours until {end}: its events wait in its queue"),
            ThrottleChange::QuietIsOver => info!(plugin, "its quiet hours are over: it gets its events again"),
            ThrottleChange::OverRate(rate) => {
                info!(plugin, "over its rate of {rate}: what comes waits in its queue, and is worked off at that rate");
            }
            ThrottleChange::CaughtUp => info!(plugin, "within its rate again: nothing waits in its queue for it"),
        }
    }

    /// Why deliveries wait though it is well.
    pub fn standing(&self) -> Option<ThrottleState> {
        self.paced(Throttle::standing)
    }

    /// Whether it waits for somebody: for new files, or for the operator's word.
    pub(super) fn is_paused(&self) -> bool {
        self.breaker().is_paused()
    }

    /// Puts a new version of the plugin in the place of the old one, if there was one. Calls in flight end on the old one.
    pub fn replace(&self, plugin: Plugin) {
        let (policy, throttle) = (plugin.policies.breaker, plugin.policies.throttle.clone());
        {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            let plugin = match &*current {
                Some(old) => plugin.in_place_of(&old.plugin),
                None => plugin,
            };
            *current = Some(Arc::new(Version::new(plugin)));
        }
        REPLACEMENTS.fetch_add(1, Ordering::Release);
        self.paced(|own, now| own.change(throttle, now));
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.begin_anew(policy);
    }

    /// The operator holds it: what comes waits in its queue. Whether that is news.
    pub fn hold(&self) -> bool {
        let news = self.breaker().hold(true);
        self.changed.send_replace(());
        news
    }

    /// The operator lets it go, and forgives what it did. Whether that is news.
    pub fn let_go(&self) -> bool {
        let was_held = self.breaker().hold(false);
        let policy = self.plugin().map_or_else(BreakerPolicy::default, |plugin| plugin.policies.breaker);
        self.begin_anew(policy) || was_held
    }

    fn begin_anew(&self, policy: BreakerPolicy) -> bool {
        let change = self.breaker().resume(policy);
        if change.is_some() {
            *self.news.lock().unwrap_or_else(PoisonError::into_inner) = change;
        }
        self.changed.send_replace(());
        change.is_some()
    }

    /// Waits for a change that was not made in a session, and so was told to nobody.
    pub(super) async fn news(&self) -> Change {
        let mut changed = self.changed.subscribe();
        loop {
            let news = self.news.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(news) = news {
                return news;
            }
            // The sender is in `self`, so there is no error.
            let _ = changed.changed().await;
        }
    }

    /// Why the last call failed, of those that this version made.
    pub fn last_failure(&self) -> Option<String> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn is_served(&self) -> bool {
        *self.served.borrow()
    }

    pub(super) fn serve(&self, served: bool) {
        *self.no_queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.served.send_replace(served);
    }

    /// The broker makes no queue for it, for this reason.
    pub(super) fn has_no_queue(&self, problem: &str) {
        *self.no_queue.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.to_owned());
    }

    /// Why it gets no events, though there is a session with the broker.
    pub fn no_queue(&self) -> Option<String> {
        self.no_queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it gets events. False: not within this time, for there is no session, or no queue for it.
    pub async fn is_served_within(&self, time: Duration) -> bool {
        let mut served = self.served.subscribe();
        // The sender is in `self`, so the only error is that of the time.
        tokio::time::timeout(time, served.wait_for(|served| *served)).await.is_ok()
    }

    /// Whether its lines are its work and the log takes none.
    pub(super) fn is_blocked_by_log(&self) -> bool {
        self.plugin().is_some_and(|plugin| plugin.is_blocked_by_log())
    }

    /// How it is.
    pub fn health(&self) -> Health {
        if !self.is_loaded() {
            return Health::NotLoaded;
        }
        let standing = self.standing().map(|standing| standing.why);
        let is_blocked = self.is_blocked_by_log();
        let breaker = self.breaker();
        match breaker.state() {
            _ if breaker.is_held() => Health::Held,
            State::Open { .. } => Health::Failing,
            State::Paused => Health::Misconfigured,
            State::Closed if is_blocked => Health::LogBlocked,
            State::Closed => match standing {
                Some(Why::Quiet) => Health::Quiet,
                Some(Why::Rate) => Health::RateLimited,
                None => Health::Well,
            },
        }
    }

    /// Too many of its calls failed, whatever else keeps them away.
    pub fn is_failing(&self) -> bool {
        matches!(self.breaker().state(), State::Open { .. })
    }

    /// Calls that are being made now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The plugin's own time limit and the like are in this version of it.
    pub(super) fn plugin(&self) -> &Plugin {
        &self.version.plugin
    }

    /// The one attempt, and what it changed about the plugin's health.
    /// With `keep_log`, and what the plugin logged.
    pub(super) async fn attempt(
        mut self,
        event: &Event,
        attempt: Attempt,
        keep_log: bool,
    ) -> (Outcome, Option<Change>, Beginning) {
        let counted = Counted::new(&self.runner.in_flight);
        let (answer, log) = self.version.plugin.attempt(event, attempt, self.instance_permit.take(), keep_log).await;
        let outcome = Outcome::of(answer);
        drop(counted);
        self.ended = true;
        let change = {
            let mut breaker = self.runner.breaker();
            let is_of_now = breaker.generation() == self.generation;
            if is_of_now && let Some(reason) = outcome.failure() {
                *self.runner.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            }
            match &outcome {
                // A call of the version before says nothing about this one.
                _ if !is_of_now => None,
                Outcome::Misconfigured(_) => breaker.pause(),
                Outcome::Retry { .. } => breaker.ended(self.probe, true, Instant::now()),
                // Nothing is known of the plugin by that.
                Outcome::MachineFault(_) => {
                    breaker.not_made(self.probe);
                    None
                }
                // The plugin works; that it does not like the event is another matter.
                Outcome::Done(_) | Outcome::Skipped(_) | Outcome::Reject(_) => {
                    breaker.ended(self.probe, false, Instant::now())
                }
            }
        };
        if change.is_some() || self.probe {
            self.runner.changed.send_replace(());
        }
        (outcome, change, log)
    }
}

/// One call more, for as long as it lives.
struct Counted<'c>(&'c AtomicUsize);

impl<'c> Counted<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
