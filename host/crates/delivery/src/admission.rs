//! Admission decides when a delivery gets a permit for an attempt: the plugin is healthy, the throttle allows
//! it, and there is a free slot. It also decides when a plugin's queue may be consumed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox::{InstancePermit, Plugin};
use telemetry::metrics::SpillReason;
use tokio_util::sync::CancellationToken;

use crate::breaker::{BreakerDecision, BreakerReason};
use crate::permit::Permit;
use crate::runner::{Runner, Version};
use crate::throttle::{DeliveryOrigin, Throttle, ThrottleDecision, ThrottleReason};

/// How often a plugin may be replaced while one attempt waits to begin.
const VERSIONS_MAX: usize = 4;
/// Interval between looks at the wall clock, which somebody may set, during quiet hours or a long wait for the
/// rate.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Interval between checks whether the log accepts lines again.
const LOG_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why an attempt is not made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// No slot was free in time.
    Busy,
    /// The breaker is open, or the plugin is paused.
    Unwell(BreakerReason),
    /// The throttle does not allow it.
    NotYet(ThrottleReason),
    /// The plugin has not been loaded yet.
    NotLoaded,
    /// The plugin's work is to write log lines, and the log accepts none.
    LogBlocked,
    /// The delivery waited for its turn, and is given back to the queue.
    GivenBack,
}

impl From<NotAdmitted> for SpillReason {
    fn from(refusal: NotAdmitted) -> Self {
        match refusal {
            // A delivery that is given back was never spilled: it came from the plugin's own queue.
            NotAdmitted::Busy | NotAdmitted::GivenBack => Self::Busy,
            NotAdmitted::Unwell(BreakerReason::Failing) => Self::Failing,
            NotAdmitted::Unwell(BreakerReason::Misconfigured) => Self::Misconfigured,
            NotAdmitted::Unwell(BreakerReason::Held) => Self::Paused,
            NotAdmitted::NotYet(ThrottleReason::Quiet) => Self::QuietHours,
            NotAdmitted::NotYet(ThrottleReason::Rate) => Self::RateLimited,
            NotAdmitted::NotLoaded => Self::NotLoaded,
            NotAdmitted::LogBlocked => Self::LogBlocked,
        }
    }
}

/// How to consume the plugin's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BacklogDraw {
    /// Whether to take only a probe, to test whether the plugin has recovered.
    probing: bool,
    /// Number of deliveries at once.
    pub(super) in_hand: usize,
}

impl Runner {
    /// Waits for a permit. A delivery from the backlog waits for its turn under the rate until `give_back`.
    pub(super) async fn enter(
        self: &Arc<Self>,
        origin: DeliveryOrigin,
        give_back: &CancellationToken,
    ) -> Result<Permit, NotAdmitted> {
        // The plugin's files may change meanwhile. A replaced version begins no new calls.
        for _ in 0..VERSIONS_MAX {
            let permit = match origin {
                DeliveryOrigin::Source => self.enter_from_source().await?,
                DeliveryOrigin::Backlog => self.enter_from_backlog(give_back).await?,
            };
            if permit.is_current() {
                return Ok(permit);
            }
        }
        Err(NotAdmitted::Busy)
    }

    /// Issues the permit for an attempt. There is no other place that does.
    fn admit(
        self: &Arc<Self>,
        origin: DeliveryOrigin,
        version: Arc<Version>,
        instance_permit: InstancePermit,
    ) -> Result<Permit, NotAdmitted> {
        self.look_at_log(&version.plugin)?;
        let mut breaker = self.breaker();
        let now = Instant::now();
        // Ask the breaker before the throttle, so that a refusal does not cost a token.
        if let BreakerDecision::Wait(_) = breaker.look(now) {
            return Err(NotAdmitted::Unwell(breaker.reason()));
        }
        if let ThrottleDecision::Later { why, .. } = self.turn(|throttle, now| throttle.take(origin, now)) {
            return Err(NotAdmitted::NotYet(why));
        }
        let probe = match breaker.admit(now) {
            BreakerDecision::Go => false,
            BreakerDecision::Probe => true,
            BreakerDecision::Wait(_) => return Err(NotAdmitted::Unwell(breaker.reason())),
        };
        let generation = breaker.generation();
        Ok(Permit {
            runner: Arc::clone(self),
            version,
            instance: Some(instance_permit),
            probe,
            generation,
            ended: false,
        })
    }

    async fn enter_from_source(self: &Arc<Self>) -> Result<Permit, NotAdmitted> {
        let version = self.current().ok_or(NotAdmitted::NotLoaded)?;
        let Version { plugin, slots, .. } = &*version;
        // Most often there is a free slot at once.
        if let Some(instance_permit) = plugin.permit_at_once(&slots.first) {
            return self.admit(DeliveryOrigin::Source, version, instance_permit);
        }
        // A delivery that would not be admitted anyway need not wait for a slot.
        self.look()?;
        if let ThrottleDecision::Later { why, .. } =
            self.turn(|throttle, now| throttle.look(DeliveryOrigin::Source, now))
        {
            return Err(NotAdmitted::NotYet(why));
        }
        let instance_permit =
            async { Some(plugin.instance_permit(Arc::clone(&slots.first).acquire_owned().await.ok()?).await) };
        let instance_permit = self.wait_queue.wait(instance_permit).await.flatten().ok_or(NotAdmitted::Busy)?;
        self.admit(DeliveryOrigin::Source, version, instance_permit)
    }

    async fn enter_from_backlog(self: &Arc<Self>, give_back: &CancellationToken) -> Result<Permit, NotAdmitted> {
        self.look()?;
        let has_rate = self.throttle().has_rate();
        let turn = async { if has_rate { self.turns.acquire().await.ok() } else { None } };
        // Hold the turn until the permit is issued, so that deliveries keep their order.
        let _turn = give_back.run_until_cancelled(turn).await.ok_or(NotAdmitted::GivenBack)?;
        loop {
            give_back.run_until_cancelled(self.when_due()).await.ok_or(NotAdmitted::GivenBack)??;
            let version = self.current().ok_or(NotAdmitted::NotLoaded)?;
            let Version { plugin, slots, .. } = &*version;
            let slot = slots.for_backlog().await.ok_or(NotAdmitted::Busy)?;
            let instance_permit = plugin.instance_permit(slot).await;
            match self.admit(DeliveryOrigin::Backlog, version, instance_permit) {
                // The turn passed while the delivery waited for a slot, so wait for the next one.
                Err(NotAdmitted::NotYet(_)) => {}
                other => return other,
            }
        }
    }

    /// Waits for the turn of a delivery from the backlog. Fails at once if the turn is far away.
    async fn when_due(&self) -> Result<(), NotAdmitted> {
        let mut changed = self.changed.subscribe();
        loop {
            match self.turn(|throttle, now| throttle.look(DeliveryOrigin::Backlog, now)) {
                ThrottleDecision::Now => return Ok(()),
                turn @ ThrottleDecision::Later { why, .. } if turn.is_far(Instant::now()) => {
                    return Err(NotAdmitted::NotYet(why));
                }
                ThrottleDecision::Later { until, .. } => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until.into()) => {}
                        // Cannot fail: `self` owns the sender.
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
            BreakerDecision::Wait(_) => Err(NotAdmitted::Unwell(breaker.reason())),
        }
    }

    /// Checks that the log accepts lines, for a plugin whose work is to write them.
    pub(super) fn look_at_log(&self, plugin: &Plugin) -> Result<(), NotAdmitted> {
        if !plugin.is_blocked_by_log() {
            return Ok(());
        }
        // Wake the backlog, so that it stops consuming.
        self.changed.send_replace(());
        Err(NotAdmitted::LogBlocked)
    }

    /// Waits until the plugin's queue may be consumed.
    pub(super) async fn when_ready(&self) -> BacklogDraw {
        let mut changed = self.changed.subscribe();
        loop {
            let until = match self.draw() {
                Ok(draw) => return draw,
                Err(until) => until,
            };
            tokio::select! {
                () = sleep_until(until) => {}
                // Cannot fail: `self` owns the sender.
                _ = changed.changed() => {}
            }
        }
    }

    /// Returns how the queue may be consumed now. The error is the time to ask again, if known.
    fn draw(&self) -> Result<BacklogDraw, Option<Instant>> {
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
        let turn = self.with_throttle(Throttle::draw);
        match turn {
            ThrottleDecision::Later { until, .. } if turn.is_far(Instant::now()) => {
                Err(Some(until.min(Instant::now() + LOOK_EVERY)))
            }
            ThrottleDecision::Now | ThrottleDecision::Later { .. } => {
                Ok(BacklogDraw { probing, in_hand: if probing { 1 } else { self.in_hand() } })
            }
        }
    }

    fn in_hand(&self) -> usize {
        let max = self.current().map_or(1, |version| version.slots.backlog_max());
        self.throttle().in_hand(max)
    }

    /// Waits until [`Self::when_ready`] would return something else.
    pub(super) async fn when_different(&self, draw: BacklogDraw) {
        let mut changed = self.changed.subscribe();
        loop {
            // Not inside the match, which would hold the lock to its end.
            let admission = self.breaker().look(Instant::now());
            let same = match admission {
                BreakerDecision::Go => !draw.probing,
                BreakerDecision::Probe => draw.probing,
                // The consumer must stay while its probe runs.
                BreakerDecision::Wait(until) => draw.probing && until.is_none() && !self.is_paused(),
            };
            let (turn, changes_at) = self.with_throttle(|throttle, now| (throttle.peek(now), throttle.changes_at(now)));
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

    /// Returns whether new deliveries go behind others, which may wait in the plugin's queue.
    pub(super) fn is_behind(&self) -> bool {
        self.throttle().is_behind()
    }

    /// Waits until new deliveries go behind others, which may wait in the plugin's queue.
    pub(super) async fn when_behind(&self) {
        let mut changed = self.changed.subscribe();
        while !self.throttle().is_behind() {
            let _ = changed.changed().await;
        }
    }

    /// Notes that nothing waits in the plugin's queue.
    pub(super) fn caught_up(&self) {
        self.with_throttle(|throttle, _| throttle.caught_up());
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
