//! A runner is a plugin as delivery sees it, with its slots, breaker and throttle. It survives the loss of a
//! session with the broker, and changes of the plugin's files.
//!
//! A runner may exist before its plugin. While the machine cannot load the plugin, its events wait in its
//! queue, not yet routed, and nothing is taken from there.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use config::{BreakerPolicy, Policies};
use sandbox::Plugin;
use telemetry::metrics::PluginMetrics;
use tokio::sync::{Semaphore, watch};
use tracing::info;

use crate::breaker::{Breaker, BreakerState, Change};
use crate::route_reason::RouteReasons;
use crate::slots::Slots;
use crate::throttle::{ClockReading, Throttle, ThrottleChange, ThrottleDecision, ThrottleReason, ThrottleState};
use crate::wait_queue::WaitQueue;

/// Number of replaced plugins, over all runners.
static REPLACEMENTS: AtomicU64 = AtomicU64::new(0);

/// Returns a number that changes whenever a plugin is replaced by a new version. Data derived from earlier
/// subscriptions is then stale.
pub(super) fn replacements() -> u64 {
    REPLACEMENTS.load(Ordering::Acquire)
}

pub struct Runner {
    pub name: Arc<str>,
    /// The path of the plugin's toml. The operator looks for the plugin beside it.
    pub toml: PathBuf,
    pub metrics: Arc<PluginMetrics>,
    /// `None` until the plugin is first loaded. It never becomes `None` again.
    pub(super) current: RwLock<Option<Arc<Version>>>,
    pub(super) wait_queue: WaitQueue,
    breaker: Mutex<Breaker>,
    /// If both locks are needed, take the breaker's first.
    throttle: Mutex<Throttle>,
    /// With a rate, deliveries from the backlog take their turns one after another, in order of arrival.
    pub(super) turns: Semaphore,
    /// A change that a session still has to announce.
    news: Mutex<Option<Change>>,
    pub(super) in_flight: AtomicUsize,
    /// Why the most recent failed call failed.
    pub(super) last_failure: Mutex<Option<String>>,
    /// Whether a session delivers events to the plugin.
    served: watch::Sender<bool>,
    /// Why the broker refuses to declare the plugin's queue.
    no_queue: Mutex<Option<String>>,
    /// Fires whenever the breaker or the throttle may decide differently.
    pub(super) changed: watch::Sender<()>,
}

/// One version of the plugin. Each has slots of its own.
pub(super) struct Version {
    pub(super) plugin: Arc<Plugin>,
    pub(super) reasons: RouteReasons,
    pub(super) slots: Slots,
}

impl Version {
    fn new(plugin: Plugin) -> Self {
        Self {
            slots: Slots::new(plugin.limits.concurrency),
            reasons: RouteReasons::of(&plugin),
            plugin: Arc::new(plugin),
        }
    }
}

/// The health of a plugin, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Well,
    /// The machine could not load the plugin. Loading is tried again.
    NotLoaded,
    /// The breaker is open.
    Failing,
    /// The plugin reports that it is misconfigured, and waits for new files.
    Misconfigured,
    /// The operator holds the plugin.
    Held,
    /// The plugin is in its quiet hours.
    Quiet,
    /// More events arrive than the plugin's rate allows.
    RateLimited,
    /// The plugin's work is to write log lines, and the log accepts none.
    LogBlocked,
}

impl Runner {
    /// Creates a runner for a plugin that has not been loaded yet. [`Self::replace`] gives it its first
    /// version.
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

    /// Returns the plugin, or `None` if it has not been loaded yet.
    pub fn plugin(&self) -> Option<Arc<Plugin>> {
        self.current().map(|version| Arc::clone(&version.plugin))
    }

    pub fn is_loaded(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn current(&self) -> Option<Arc<Version>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the throttle whether a delivery may go to the plugin.
    pub(super) fn turn(&self, ask: impl FnOnce(&mut Throttle, ClockReading) -> ThrottleDecision) -> ThrottleDecision {
        // Most plugins have neither a rate nor quiet hours. Do not read the clock for them.
        if self.throttle().is_free() { ThrottleDecision::Now } else { self.with_throttle(ask) }
    }

    /// Asks the throttle, then logs and signals the changes that result.
    pub(super) fn with_throttle<T>(&self, ask: impl FnOnce(&mut Throttle, ClockReading) -> T) -> T {
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

    /// Returns why deliveries wait although the plugin is healthy.
    pub fn standing(&self) -> Option<ThrottleState> {
        self.with_throttle(Throttle::standing)
    }

    /// Returns whether the plugin waits for somebody to act: for new files, or for the operator.
    pub(super) fn is_paused(&self) -> bool {
        self.breaker().is_paused()
    }

    /// Puts a new version in the place of the old one, if there is one. Calls in flight finish on the old
    /// version.
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
        self.with_throttle(|own, now| own.change(throttle, now));
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.begin_anew(policy);
    }

    /// Holds the plugin for the operator: events wait in its queue. Returns whether that changes anything.
    pub fn hold(&self) -> bool {
        let news = self.breaker().hold(true);
        self.changed.send_replace(());
        news
    }

    /// Ends the operator's hold and resets the breaker. Returns whether that changes anything.
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

    /// Waits for a change that happened outside a session and still has to be announced.
    pub(super) async fn news(&self) -> Change {
        let mut changed = self.changed.subscribe();
        loop {
            let news = self.news.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(news) = news {
                return news;
            }
            // Cannot fail: `self` owns the sender.
            let _ = changed.changed().await;
        }
    }

    /// Returns why the most recent failed call of this version failed.
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

    /// Records why the broker refuses to declare the plugin's queue.
    pub(super) fn has_no_queue(&self, problem: &str) {
        *self.no_queue.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.to_owned());
    }

    /// Returns why the plugin gets no events although there is a session with the broker.
    pub fn no_queue(&self) -> Option<String> {
        self.no_queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the plugin gets events. Returns false if it does not within `time`: there is no session, or
    /// no queue for it.
    pub async fn is_served_within(&self, time: Duration) -> bool {
        let mut served = self.served.subscribe();
        // Only the timeout can fail: `self` owns the sender.
        tokio::time::timeout(time, served.wait_for(|served| *served)).await.is_ok()
    }

    /// Returns whether the plugin's work is to write log lines and the log accepts none.
    pub(super) fn is_blocked_by_log(&self) -> bool {
        self.plugin().is_some_and(|plugin| plugin.is_blocked_by_log())
    }

    /// Returns the plugin's health.
    pub fn health(&self) -> Health {
        if !self.is_loaded() {
            return Health::NotLoaded;
        }
        let standing = self.standing().map(|standing| standing.why);
        let is_blocked = self.is_blocked_by_log();
        let breaker = self.breaker();
        match breaker.state() {
            _ if breaker.is_held() => Health::Held,
            BreakerState::Open { .. } => Health::Failing,
            BreakerState::Paused => Health::Misconfigured,
            BreakerState::Closed if is_blocked => Health::LogBlocked,
            BreakerState::Closed => match standing {
                Some(ThrottleReason::Quiet) => Health::Quiet,
                Some(ThrottleReason::Rate) => Health::RateLimited,
                None => Health::Well,
            },
        }
    }

    /// Returns whether the breaker is open, whatever else keeps calls away.
    pub fn is_failing(&self) -> bool {
        matches!(self.breaker().state(), BreakerState::Open { .. })
    }

    /// Returns the number of calls in progress.
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
