//! A runner is a plugin as delivery sees it: with its slots, its breaker and its policy. It stays
//! when the session with the broker is lost, and when the plugin's files change.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::BreakerPolicy;
use crate::delivery::breaker::{Admission, Breaker, Change, State};
use crate::delivery::policy::Outcome;
use crate::event::Event;
use crate::plugin::{Attempt, Plugin, Room};

/// How long a first attempt waits for a slot before it spills.
const PATIENCE: Duration = Duration::from_millis(250);
/// First attempts that wait for a slot of one plugin; the next one spills at once.
const WAITING_MAX: usize = 128;
/// How often a plugin may be replaced while one attempt waits to begin.
const VERSIONS_MAX: usize = 4;
/// Of the slots, so many per cent are for the backlog alone.
const BACKLOG_PERCENT: usize = 25;

pub(crate) struct Runner {
    pub(crate) name: Arc<str>,
    /// Beside which the operator would look for it.
    pub(crate) toml: PathBuf,
    current: RwLock<Version>,
    waiting: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
    /// What a session must still tell.
    news: Mutex<Option<Change>>,
    in_flight: Arc<AtomicUsize>,
    /// Why the last call failed that did.
    last_failure: Mutex<Option<String>>,
    /// Whether a session hands it events.
    served: watch::Sender<bool>,
    /// Changes whenever the breaker may judge differently.
    changed: watch::Sender<()>,
}

/// A plugin as it is now; a changed one has slots of its own.
#[derive(Clone)]
struct Version {
    plugin: Arc<Plugin>,
    slots: Arc<Slots>,
}

impl Version {
    fn new(plugin: Plugin) -> Self {
        Self { slots: Arc::new(Slots::new(plugin.limits.concurrency)), plugin: Arc::new(plugin) }
    }
}

/// Two kinds, so that neither kind of attempt starves the other.
struct Slots {
    first: Arc<Semaphore>,
    first_count: usize,
    /// The same as `first` where there is only one slot in all.
    backlog: Arc<Semaphore>,
    backlog_count: usize,
}

impl Slots {
    fn new(count: usize) -> Self {
        if count < 2 {
            let only = Arc::new(Semaphore::new(1));
            return Self { first: Arc::clone(&only), first_count: 1, backlog: only, backlog_count: 1 };
        }
        let backlog = (count * BACKLOG_PERCENT / 100).max(1);
        let first = count - backlog;
        Self {
            first: Arc::new(Semaphore::new(first)),
            first_count: first,
            backlog: Arc::new(Semaphore::new(backlog)),
            backlog_count: backlog,
        }
    }

    /// Attempts from the backlog at once: its own, and half of the others while they are idle.
    fn backlog_max(&self) -> usize {
        self.backlog_count + self.first_count / 2
    }

    async fn for_backlog(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.backlog).try_acquire_owned() {
            return Some(slot);
        }
        if self.first.available_permits() > self.first_count.div_ceil(2)
            && let Ok(slot) = Arc::clone(&self.first).try_acquire_owned()
        {
            return Some(slot);
        }
        Arc::clone(&self.backlog).acquire_owned().await.ok()
    }
}

/// Where an attempt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Source,
    Backlog,
}

/// Why an attempt is not made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No slot was free soon enough.
    Busy,
    /// The breaker is open, or the plugin is paused.
    Unwell,
}

/// How a plugin is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    /// It is left alone for a while.
    Failing,
    /// It says so itself, and waits for new files.
    Misconfigured,
    /// The operator holds it.
    Held,
}

/// The right to one attempt. Dropping it, or the attempt, gives it back.
pub(super) struct Pass {
    runner: Arc<Runner>,
    plugin: Arc<Plugin>,
    room: Option<Room>,
    probe: bool,
    /// Of the breaker, when it let this through.
    generation: u64,
    ended: bool,
}

impl Drop for Pass {
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
    pub(crate) fn new(plugin: Plugin, toml: PathBuf) -> Self {
        Self {
            name: Arc::clone(&plugin.name),
            toml,
            news: Mutex::default(),
            in_flight: Arc::default(),
            last_failure: Mutex::default(),
            served: watch::Sender::new(false),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            breaker: Mutex::new(Breaker::new(plugin.policies.breaker)),
            changed: watch::Sender::new(()),
            current: RwLock::new(Version::new(plugin)),
        }
    }

    pub(crate) fn plugin(&self) -> Arc<Plugin> {
        self.current().plugin
    }

    fn current(&self) -> Version {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Attempts from the backlog at once.
    pub(super) fn backlog_max(&self) -> usize {
        self.current().slots.backlog_max()
    }

    /// The right to an attempt, once there is room for it.
    pub(super) async fn enter(self: &Arc<Self>, origin: Origin) -> Result<Pass, Refusal> {
        // Its files may change while it waits: what was replaced begins nothing new.
        for _ in 0..VERSIONS_MAX {
            let pass = self.enter_current(origin).await?;
            if Arc::ptr_eq(&pass.plugin, &self.current().plugin) {
                return Ok(pass);
            }
        }
        Err(Refusal::Busy)
    }

    async fn enter_current(self: &Arc<Self>, origin: Origin) -> Result<Pass, Refusal> {
        // First the breaker, for it costs nothing.
        self.look()?;
        let Version { plugin, slots } = self.current();
        let room = match origin {
            Origin::Source => {
                let Ok(_waiting) = self.waiting.try_acquire() else { return Err(Refusal::Busy) };
                let room = async { Some(plugin.room(Arc::clone(&slots.first).acquire_owned().await.ok()?).await) };
                tokio::time::timeout(PATIENCE, room).await.ok().flatten()
            }
            Origin::Backlog => match slots.for_backlog().await {
                Some(slot) => Some(plugin.room(slot).await),
                None => None,
            },
        };
        let room = Some(room.ok_or(Refusal::Busy)?);
        let (admission, generation) = {
            let mut breaker = self.breaker();
            (breaker.admit(Instant::now()), breaker.generation())
        };
        let probe = match admission {
            Admission::Go => false,
            Admission::Probe => true,
            Admission::Wait(_) => return Err(Refusal::Unwell),
        };
        Ok(Pass { runner: Arc::clone(self), plugin, room, probe, generation, ended: false })
    }

    fn look(&self) -> Result<(), Refusal> {
        let admission = self.breaker().look(Instant::now());
        match admission {
            Admission::Go | Admission::Probe => Ok(()),
            Admission::Wait(_) => Err(Refusal::Unwell),
        }
    }

    /// Waits until the plugin may be called. True if only to probe it.
    pub(super) async fn when_well(&self) -> bool {
        let mut changed = self.changed.subscribe();
        loop {
            let admission = self.breaker().look(Instant::now());
            match admission {
                Admission::Go => return false,
                Admission::Probe => return true,
                Admission::Wait(until) => {
                    let until = async {
                        match until {
                            Some(until) => tokio::time::sleep_until(until.into()).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = until => {}
                        // The sender is in `self`, so there is no error.
                        _ = changed.changed() => {}
                    }
                }
            }
        }
    }

    /// Waits until [`Self::when_well`] would say something else, or [`Self::backlog_max`].
    pub(super) async fn when_different(&self, probing: bool, backlog_max: usize) {
        let mut changed = self.changed.subscribe();
        loop {
            // Not in the match, which would hold the lock to its end.
            let admission = self.breaker().look(Instant::now());
            let same = match admission {
                Admission::Go => !probing,
                Admission::Probe => probing,
                // While the probe runs its consumer must stay.
                Admission::Wait(until) => probing && until.is_none() && !self.is_paused(),
            };
            if !same || (!probing && self.backlog_max() != backlog_max) {
                return;
            }
            let _ = changed.changed().await;
        }
    }

    /// Whether it waits for somebody: for new files, or for the operator's word.
    fn is_paused(&self) -> bool {
        self.breaker().is_paused()
    }

    /// Puts a new version of the plugin in the place of the old one. Calls in flight end on the old one.
    pub(crate) fn replace(&self, plugin: Plugin) {
        let policy = plugin.policies.breaker;
        {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            *current = Version::new(plugin.in_place_of(&current.plugin));
        }
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.begin_anew(policy);
    }

    /// The operator holds it: what comes waits in its queue. Whether that is news.
    pub(crate) fn hold(&self) -> bool {
        let news = self.breaker().hold(true);
        self.changed.send_replace(());
        news
    }

    /// The operator lets it go, and forgives what it did. Whether that is news.
    pub(crate) fn let_go(&self) -> bool {
        let was_held = self.breaker().hold(false);
        let policy = self.plugin().policies.breaker;
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
    pub(crate) fn last_failure(&self) -> Option<String> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_served(&self) -> bool {
        *self.served.borrow()
    }

    pub(super) fn serve(&self, served: bool) {
        self.served.send_replace(served);
    }

    /// Waits until it gets events. False: not within this time, for there is no session, or no queue for it.
    pub(crate) async fn is_served_within(&self, time: Duration) -> bool {
        let mut served = self.served.subscribe();
        // The sender is in `self`, so the only error is that of the time.
        tokio::time::timeout(time, served.wait_for(|served| *served)).await.is_ok()
    }

    /// How it is.
    pub(crate) fn health(&self) -> Health {
        let breaker = self.breaker();
        match breaker.state() {
            _ if breaker.is_held() => Health::Held,
            State::Closed => Health::Well,
            State::Open { .. } => Health::Failing,
            State::Paused => Health::Misconfigured,
        }
    }

    /// Calls that are being made now.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The plugin's own time limit and the like are in this version of it.
    pub(super) fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// The one attempt, and what it changed about the plugin's health.
    pub(super) async fn attempt(mut self, event: &Event, attempt: Attempt) -> (Outcome, Option<Change>) {
        let counted = Counted::new(&self.runner.in_flight);
        let outcome = Outcome::of(self.plugin.attempt(event, attempt, self.room.take()).await);
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
                // The plugin works; that it does not like the event is another matter.
                Outcome::Done(_) | Outcome::Skipped(_) | Outcome::Reject(_) => {
                    breaker.ended(self.probe, false, Instant::now())
                }
            }
        };
        if change.is_some() || self.probe {
            self.runner.changed.send_replace(());
        }
        (outcome, change)
    }
}

/// One call more, for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
