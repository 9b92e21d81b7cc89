//! How a delivery gets the right to an attempt: the plugin is well, it is its turn by the pace, and there is
//! room. And from when to when a plugin's queue may be taken from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox::Plugin;
use telemetry::metrics::SpillReason;
use tokio_util::sync::CancellationToken;

use crate::breaker::{Ailment, BreakerDecision};
use crate::runner::{Permit, Runner, Version};
use crate::throttle::{Throttle, ThrottleDecision, Why};

/// How often a plugin may be replaced while one attempt waits to begin.
const VERSIONS_MAX: usize = 4;
/// Between two looks at the clock on the wall, which somebody may set, while quiet hours or a far turn is awaited.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Between two looks whether the log takes lines again, for a plugin whose work they are.
const LOG_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where an attempt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Source,
    Backlog,
}

/// Why an attempt is not made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// No slot was free soon enough.
    Busy,
    /// The breaker is open, or the plugin is paused.
    Unwell(Ailment),
    /// Its pace does not allow it.
    NotYet(Why),
    /// There is nothing to call yet.
    NotLoaded,
    /// Its log lines are its work, and the log takes none.
    LogBlocked,
    /// What waits for its turn is to wait in the queue again.
    GivenBack,
}

impl From<NotAdmitted> for SpillReason {
    fn from(refusal: NotAdmitted) -> Self {
        match refusal {
            // What is given back was never spilled: it came from the plugin's own queue.
            NotAdmitted::Busy | NotAdmitted::GivenBack => Self::Busy,
            NotAdmitted::Unwell(Ailment::Failing) => Self::Failing,
            NotAdmitted::Unwell(Ailment::Misconfigured) => Self::Misconfigured,
            NotAdmitted::Unwell(Ailment::Held) => Self::Paused,
            NotAdmitted::NotYet(Why::Quiet) => Self::QuietHours,
            NotAdmitted::NotYet(Why::Rate) => Self::RateLimited,
            NotAdmitted::NotLoaded => Self::NotLoaded,
            NotAdmitted::LogBlocked => Self::LogBlocked,
        }
    }
}

/// What may be taken from the plugin's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Draw {
    /// Only to see whether it is well again.
    probing: bool,
    /// Deliveries at once.
    pub(super) in_hand: usize,
}

impl Runner {
    /// The right to an attempt, once there is room for it. What comes from the backlog waits for its turn by
    /// the rate until `give_back`.
    pub(super) async fn enter(
        self: &Arc<Self>,
        origin: Origin,
        give_back: &CancellationToken,
    ) -> Result<Permit, NotAdmitted> {
        // Its files may change while it waits: what was replaced begins nothing new.
        for _ in 0..VERSIONS_MAX {
            let permit = match origin {
                Origin::Source => self.enter_from_source().await?,
                Origin::Backlog => self.enter_from_backlog(give_back).await?,
            };
            if self.is_current(&permit) {
                return Ok(permit);
            }
        }
        Err(NotAdmitted::Busy)
    }

    async fn enter_from_source(self: &Arc<Self>) -> Result<Permit, NotAdmitted> {
        let version = self.current().ok_or(NotAdmitted::NotLoaded)?;
        let Version { plugin, slots, .. } = &*version;
        // Most often there is room at once.
        if let Some(instance_permit) = plugin.permit_at_once(&slots.first) {
            return self.admit(Origin::Source, version, instance_permit);
        }
        // Who would not be let in need not wait.
        self.look()?;
        if let ThrottleDecision::Later { why, .. } = self.turn(|throttle, now| throttle.look(Origin::Source, now)) {
            return Err(NotAdmitted::NotYet(why));
        }
        let instance_permit =
            async { Some(plugin.instance_permit(Arc::clone(&slots.first).acquire_owned().await.ok()?).await) };
        let instance_permit = self.wait_queue.wait(instance_permit).await.flatten().ok_or(NotAdmitted::Busy)?;
        self.admit(Origin::Source, version, instance_permit)
    }

    async fn enter_from_backlog(self: &Arc<Self>, give_back: &CancellationToken) -> Result<Permit, NotAdmitted> {
        self.look()?;
        let has_rate = self.throttle().has_rate();
        let turn = async { if has_rate { self.turns.acquire().await.ok() } else { None } };
        let _turn = give_back.run_until_cancelled(turn).await.ok_or(NotAdmitted::GivenBack)?;
        loop {
            give_back.run_until_cancelled(self.when_due()).await.ok_or(NotAdmitted::GivenBack)??;
            let version = self.current().ok_or(NotAdmitted::NotLoaded)?;
            let Version { plugin, slots, .. } = &*version;
            let slot = slots.for_backlog().await.ok_or(NotAdmitted::Busy)?;
            let instance_permit = plugin.instance_permit(slot).await;
            match self.admit(Origin::Backlog, version, instance_permit) {
                // It took a while until there was room.
                Err(NotAdmitted::NotYet(_)) => {}
                other => return other,
            }
        }
    }

    /// Waits until it is the turn of a delivery from the backlog, unless that is far away.
    async fn when_due(&self) -> Result<(), NotAdmitted> {
        let mut changed = self.changed.subscribe();
        loop {
            match self.turn(|throttle, now| throttle.look(Origin::Backlog, now)) {
                ThrottleDecision::ClockReading => return Ok(()),
                turn @ ThrottleDecision::Later { why, .. } if turn.is_far(Instant::now()) => {
                    return Err(NotAdmitted::NotYet(why));
                }
                ThrottleDecision::Later { until, .. } => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until.into()) => {}
                        // The sender is in `self`, so there is no error.
                        _ = changed.changed() => {}
                    }
                }
            }
        }
    }

    fn look(&self) -> Result<(), NotAdmitted> {
        if let Some(plugin) = self.plugin() {
            self.look_at_log(&plugin)?;
        }
        let breaker = self.breaker();
        match breaker.look(Instant::now()) {
            BreakerDecision::Go | BreakerDecision::Probe => Ok(()),
            BreakerDecision::Wait(_) => Err(NotAdmitted::Unwell(breaker.ailment())),
        }
    }

    /// Whether something would come of a call.
    pub(super) fn look_at_log(&self, plugin: &Plugin) -> Result<(), NotAdmitted> {
        if !plugin.is_blocked_by_log() {
            return Ok(());
        }
        // Nothing more is to be taken from its queue.
        self.changed.send_replace(());
        Err(NotAdmitted::LogBlocked)
    }

    /// Waits until something may be taken from the plugin's queue.
    pub(super) async fn when_ready(&self) -> Draw {
        let mut changed = self.changed.subscribe();
        loop {
            let until = match self.draw() {
                Ok(draw) => return draw,
                Err(until) => until,
            };
            tokio::select! {
                () = sleep_until(until) => {}
                // The sender is in `self`, so there is no error.
                _ = changed.changed() => {}
            }
        }
    }

    /// What may be taken now; if nothing, when to ask again.
    fn draw(&self) -> Result<Draw, Option<Instant>> {
        if !self.is_loaded() {
            return Err(None);
        }
        let admission = self.breaker().look(Instant::now());
        let probing = match admission {
            BreakerDecision::Go => false,
            BreakerDecision::Probe => true,
            BreakerDecision::Wait(until) => return Err(until),
        };
        if self.is_blocked_by_log() {
            return Err(Some(Instant::now() + LOG_LOOK_EVERY));
        }
        let turn = self.paced(Throttle::draw);
        match turn {
            ThrottleDecision::Later { until, .. } if turn.is_far(Instant::now()) => {
                Err(Some(until.min(Instant::now() + LOOK_EVERY)))
            }
            ThrottleDecision::ClockReading | ThrottleDecision::Later { .. } => {
                Ok(Draw { probing, in_hand: if probing { 1 } else { self.in_hand() } })
            }
        }
    }

    fn in_hand(&self) -> usize {
        let max = self.current().map_or(1, |version| version.slots.backlog_max());
        self.throttle().in_hand(max)
    }

    /// Waits until [`Self::when_ready`] would say something else.
    pub(super) async fn when_different(&self, draw: Draw) {
        let mut changed = self.changed.subscribe();
        loop {
            // Not in the match, which would hold the lock to its end.
            let admission = self.breaker().look(Instant::now());
            let same = match admission {
                BreakerDecision::Go => !draw.probing,
                BreakerDecision::Probe => draw.probing,
                // While the probe runs its consumer must stay.
                BreakerDecision::Wait(until) => draw.probing && until.is_none() && !self.is_paused(),
            };
            let (turn, changes_at) = self.paced(|throttle, now| (throttle.peek(now), throttle.changes_at(now)));
            let is_far = turn.is_far(Instant::now());
            if !same || is_far || self.is_blocked_by_log() || (!draw.probing && self.in_hand() != draw.in_hand) {
                return;
            }
            tokio::select! {
                () = sleep_until(changes_at.map(|at| at.min(Instant::now() + LOOK_EVERY))) => {}
                _ = changed.changed() => {}
            }
        }
    }

    /// Whether new deliveries have to go behind others, which may wait in the plugin's queue.
    pub(super) fn is_behind(&self) -> bool {
        self.throttle().is_behind()
    }

    /// Waits until new deliveries have to go behind others, which may wait in the plugin's queue.
    pub(super) async fn when_behind(&self) {
        let mut changed = self.changed.subscribe();
        while !self.throttle().is_behind() {
            let _ = changed.changed().await;
        }
    }

    /// Nothing waits in the plugin's queue.
    pub(super) fn caught_up(&self) {
        self.paced(|throttle, _| throttle.caught_up());
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
