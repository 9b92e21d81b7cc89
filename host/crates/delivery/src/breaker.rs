//! The breaker leaves a failing plugin alone for a while: it opens when too many calls fail, lets
//! one probe through after a pause, and closes when that succeeds. A plugin that says that it is
//! misconfigured is paused instead, until its files change. Whatever the state, an operator may hold the
//! plugin, until he lets it go.
//!
//! What it keeps away from the plugin waits in the plugin's own queue, and is not counted as tried.
//! It has no clock of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use config::BreakerPolicy;

/// Calls that are remembered, however many the window saw.
const CALLS_REMEMBERED_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Breaker {
    policy: BreakerPolicy,
    state: State,
    /// By the operator.
    held: bool,
    /// How often it has begun anew. What began before that says nothing of now.
    generation: u64,
    /// When recent calls ended, and whether they failed.
    calls: VecDeque<(Instant, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    Open { until: Instant, pause: Duration, probing: bool },
    Paused,
}

/// Whether the plugin may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerDecision {
    Go,
    /// One call, to see whether it is well again.
    Probe,
    /// Not before then, or not before it is resumed.
    Wait(Option<Instant>),
}

/// Why a plugin is not to be called, unless it is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ailment {
    /// Too many of its calls failed.
    Failing,
    /// It says so itself.
    Misconfigured,
    /// The operator holds it.
    Held,
}

/// What someone should be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Failing,
    Recovered,
    Paused,
    Resumed,
}

impl Breaker {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: State::Closed, held: false, generation: 0, calls: VecDeque::new() }
    }

    /// Whether a call may be made; it is not counted as begun.
    pub(super) fn look(&self, now: Instant) -> BreakerDecision {
        if self.held {
            return BreakerDecision::Wait(None);
        }
        match self.state {
            State::Closed => BreakerDecision::Go,
            State::Paused => BreakerDecision::Wait(None),
            State::Open { until, probing: false, .. } if now >= until => BreakerDecision::Probe,
            // A probe that never ends is given up with its call, which has a time limit.
            State::Open { until, probing, .. } => BreakerDecision::Wait((!probing).then_some(until)),
        }
    }

    /// Begins a call, if it may be made. After a probe one of [`Self::ended`] and [`Self::not_made`]
    /// must follow.
    pub(super) fn admit(&mut self, now: Instant) -> BreakerDecision {
        let admission = self.look(now);
        if let (BreakerDecision::Probe, State::Open { probing, .. }) = (admission, &mut self.state) {
            *probing = true;
        }
        admission
    }

    /// A call ended.
    pub(super) fn ended(&mut self, probe: bool, failed: bool, now: Instant) -> Option<Change> {
        match (self.state, probe) {
            (State::Closed, _) => {
                self.remember(failed, now);
                if !failed || !self.is_too_much() {
                    return None;
                }
                let pause = self.policy.pause_min;
                self.open(pause, now);
                Some(Change::Failing)
            }
            (State::Open { pause, .. }, true) if failed => {
                self.open(pause.saturating_mul(2).min(self.policy.pause_max), now);
                None
            }
            (State::Open { .. }, true) => {
                self.state = State::Closed;
                Some(Change::Recovered)
            }
            // Began before it opened, and says nothing new.
            (State::Open { .. }, false) | (State::Paused, _) => None,
        }
    }

    /// A call that was admitted was not made after all.
    pub(super) fn not_made(&mut self, probe: bool) {
        if let (true, State::Open { probing, .. }) = (probe, &mut self.state) {
            *probing = false;
        }
    }

    /// The plugin cannot work as it is.
    pub(super) fn pause(&mut self) -> Option<Change> {
        let was = std::mem::replace(&mut self.state, State::Paused);
        self.calls.clear();
        (was != State::Paused).then_some(Change::Paused)
    }

    /// Whether it waits for somebody rather than for a time.
    pub(super) fn is_paused(&self) -> bool {
        self.held || self.state == State::Paused
    }

    /// What keeps calls away, if anything does.
    pub(super) fn ailment(&self) -> Ailment {
        match self.state {
            _ if self.held => Ailment::Held,
            State::Paused => Ailment::Misconfigured,
            State::Open { .. } | State::Closed => Ailment::Failing,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// The operator's word. Whether it is news.
    pub(super) fn hold(&mut self, held: bool) -> bool {
        std::mem::replace(&mut self.held, held) != held
    }

    /// It begins anew, because its files changed or the operator says so; a hold stays.
    pub(super) fn resume(&mut self, policy: BreakerPolicy) -> Option<Change> {
        let was = self.state;
        *self = Self { held: self.held, generation: self.generation + 1, ..Self::new(policy) };
        (was != State::Closed).then_some(Change::Resumed)
    }

    fn open(&mut self, pause: Duration, now: Instant) {
        self.state = State::Open { until: now + pause, pause, probing: false };
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
