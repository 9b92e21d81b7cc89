//! The breaker leaves a failing plugin alone for a while. It opens when too many calls fail, lets one probe
//! through after a pause, and closes when the probe succeeds. A plugin that reports itself misconfigured is
//! paused instead, until its files change. In any state, an operator may hold the plugin until further notice.
//!
//! Deliveries that the breaker keeps away wait in the plugin's own queue and do not count as attempts. The
//! caller passes in the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use config::BreakerPolicy;

/// Maximum number of remembered calls, whatever the window.
const CALLS_REMEMBERED_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Breaker {
    policy: BreakerPolicy,
    state: BreakerState,
    /// Whether the operator holds the plugin.
    held: bool,
    /// Number of restarts. Calls that began in an earlier generation say nothing about this one.
    generation: u64,
    /// The end of each recent call, and whether it failed.
    calls: VecDeque<(Instant, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerState {
    Closed,
    Open { until: Instant, pause: Duration, probing: bool },
    Paused,
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerDecision {
    Go,
    /// One call, to test whether the plugin has recovered.
    Probe,
    /// Not before this time. `None` means not before something else happens: the plugin is resumed, or the
    /// probe ends.
    Wait(Option<Instant>),
}

/// Why the breaker keeps calls from the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerReason {
    /// Too many calls failed.
    Failing,
    /// The plugin reports that it is misconfigured.
    Misconfigured,
    /// The operator holds the plugin.
    Held,
}

/// A change in the plugin's health that is worth reporting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Failing,
    Recovered,
    Paused,
    Resumed,
}

impl Breaker {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: BreakerState::Closed, held: false, generation: 0, calls: VecDeque::new() }
    }

    /// Returns whether a call may be made, without beginning one.
    pub(super) fn look(&self, now: Instant) -> BreakerDecision {
        if self.held {
            return BreakerDecision::Wait(None);
        }
        match self.state {
            BreakerState::Closed => BreakerDecision::Go,
            BreakerState::Paused => BreakerDecision::Wait(None),
            BreakerState::Open { until, probing: false, .. } if now >= until => BreakerDecision::Probe,
            // A probe that never ends is cut off with its call, which has a time limit.
            BreakerState::Open { until, probing, .. } => BreakerDecision::Wait((!probing).then_some(until)),
        }
    }

    /// Begins a call, if it may be made. After a probe, [`Self::ended`] or [`Self::not_made`] must follow.
    pub(super) fn admit(&mut self, now: Instant) -> BreakerDecision {
        let admission = self.look(now);
        if let (BreakerDecision::Probe, BreakerState::Open { probing, .. }) = (admission, &mut self.state) {
            *probing = true;
        }
        admission
    }

    /// Records the end of a call.
    pub(super) fn ended(&mut self, probe: bool, failed: bool, now: Instant) -> Option<Change> {
        match (self.state, probe) {
            (BreakerState::Closed, _) => {
                self.remember(failed, now);
                if !failed || !self.is_too_much() {
                    return None;
                }
                let pause = self.policy.pause_min;
                self.open(pause, now);
                Some(Change::Failing)
            }
            (BreakerState::Open { pause, .. }, true) if failed => {
                self.open(pause.saturating_mul(2).min(self.policy.pause_max), now);
                None
            }
            (BreakerState::Open { .. }, true) => {
                self.state = BreakerState::Closed;
                Some(Change::Recovered)
            }
            // The call began before the breaker opened, and says nothing new.
            (BreakerState::Open { .. }, false) | (BreakerState::Paused, _) => None,
        }
    }

    /// Takes back an admitted call that was not made.
    pub(super) fn not_made(&mut self, probe: bool) {
        if let (true, BreakerState::Open { probing, .. }) = (probe, &mut self.state) {
            *probing = false;
        }
    }

    /// Pauses the plugin, which cannot work as it is configured.
    pub(super) fn pause(&mut self) -> Option<Change> {
        let was = std::mem::replace(&mut self.state, BreakerState::Paused);
        self.calls.clear();
        (was != BreakerState::Paused).then_some(Change::Paused)
    }

    /// Returns whether the plugin waits for somebody to act, rather than for a time.
    pub(super) fn is_paused(&self) -> bool {
        self.held || self.state == BreakerState::Paused
    }

    /// Returns the reason why calls are kept away. Only meaningful if they are.
    pub(super) fn reason(&self) -> BreakerReason {
        match self.state {
            _ if self.held => BreakerReason::Held,
            BreakerState::Paused => BreakerReason::Misconfigured,
            BreakerState::Open { .. } | BreakerState::Closed => BreakerReason::Failing,
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        self.state
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Sets whether the operator holds the plugin. Returns whether that changes anything.
    pub(super) fn hold(&mut self, held: bool) -> bool {
        std::mem::replace(&mut self.held, held) != held
    }

    /// Starts over, because the plugin's files changed or the operator resumed it. A hold stays.
    pub(super) fn resume(&mut self, policy: BreakerPolicy) -> Option<Change> {
        let was = self.state;
        *self = Self { held: self.held, generation: self.generation + 1, ..Self::new(policy) };
        (was != BreakerState::Closed).then_some(Change::Resumed)
    }

    fn open(&mut self, pause: Duration, now: Instant) {
        self.state = BreakerState::Open { until: now + pause, pause, probing: false };
        self.calls.clear();
    }

    fn remember(&mut self, failed: bool, now: Instant) {
        self.calls.push_back((now, failed));
        let window = self.policy.window;
        while self.calls.len() > CALLS_REMEMBERED_MAX.max(self.policy.calls_min)
            || self.calls.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > window)
        {
            self.calls.pop_front();
        }
    }

    fn is_too_much(&self) -> bool {
        let failures = self.calls.iter().filter(|(_, failed)| *failed).count();
        let share = usize::try_from(self.policy.failures_percent).unwrap_or(100);
        self.calls.len() >= self.policy.calls_min && failures * 100 >= self.calls.len() * share && failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerPolicy::default())
    }

    fn fail(breaker: &mut Breaker, count: usize, now: Instant) -> Option<Change> {
        (0..count).find_map(|_| breaker.ended(false, true, now))
    }

    #[test]
    fn it_opens_on_the_share_of_failures_in_the_window() {
        let (mut breaker, now) = (breaker(), Instant::now());
        assert_eq!(fail(&mut breaker, 9, now), None, "too few calls to judge by");
        let later = now + Duration::from_mins(2);
        assert_eq!(fail(&mut breaker, 9, later), None, "the first ones are out of the window");
        for _ in 0..20 {
            assert_eq!(breaker.ended(false, false, later), None);
        }
        assert_eq!(fail(&mut breaker, 10, later), None, "19 of 39 failed");
        assert_eq!(breaker.admit(later), BreakerDecision::Go);
        assert_eq!(fail(&mut breaker, 1, later), Some(Change::Failing));
        assert_eq!(breaker.admit(later), BreakerDecision::Wait(Some(later + Duration::from_secs(5))));
        assert_eq!(fail(&mut breaker, 1, later), None, "a straggler");
    }

    #[test]
    fn one_probe_decides_and_each_failed_one_doubles_the_pause() {
        let (mut breaker, mut now) = (breaker(), Instant::now());
        fail(&mut breaker, 10, now);
        for pause in [5, 10, 20, 40, 80, 160, 300, 300] {
            let just_before = now + Duration::from_millis(pause * 1000 - 1);
            now += Duration::from_secs(pause);
            assert_eq!(breaker.look(just_before), BreakerDecision::Wait(Some(now)));
            assert_eq!(breaker.admit(now), BreakerDecision::Probe);
            assert_eq!(breaker.admit(now), BreakerDecision::Wait(None), "one at a time");
            assert_eq!(breaker.ended(true, true, now), None);
        }
        now += Duration::from_mins(5);
        assert_eq!(breaker.admit(now), BreakerDecision::Probe);
        breaker.not_made(true);
        assert_eq!(breaker.admit(now), BreakerDecision::Probe);
        assert_eq!(breaker.ended(true, false, now), Some(Change::Recovered));
        assert_eq!(breaker.admit(now), BreakerDecision::Go);
        assert_eq!(fail(&mut breaker, 9, now), None, "it begins anew");
    }

    #[test]
    fn a_paused_plugin_waits_until_it_is_resumed() {
        let (mut breaker, now) = (breaker(), Instant::now());
        assert_eq!(breaker.resume(BreakerPolicy::default()), None);
        assert_eq!(breaker.pause(), Some(Change::Paused));
        assert_eq!(breaker.pause(), None, "told once");
        assert_eq!(breaker.ended(false, false, now), None);
        assert_eq!(breaker.admit(now + Duration::from_hours(99)), BreakerDecision::Wait(None));
        assert_eq!(breaker.resume(BreakerPolicy::default()), Some(Change::Resumed));
        assert_eq!(breaker.admit(now), BreakerDecision::Go);
    }

    #[test]
    fn what_the_operator_holds_stays_held_until_he_lets_it_go() {
        let (mut breaker, now) = (breaker(), Instant::now());
        assert!(breaker.hold(true));
        assert!(!breaker.hold(true), "told once");
        assert_eq!(breaker.admit(now), BreakerDecision::Wait(None));
        assert_eq!(breaker.pause(), Some(Change::Paused), "a call that was in flight");
        assert_eq!(breaker.resume(BreakerPolicy::default()), Some(Change::Resumed));
        assert_eq!(breaker.admit(now), BreakerDecision::Wait(None), "new files do not let it go");
        assert!(breaker.hold(false));
        assert_eq!(breaker.admit(now), BreakerDecision::Go);
    }
}
