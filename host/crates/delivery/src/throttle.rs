//! The throttle decides when a plugin may be called, by the operator's rate and quiet hours.
//!
//! Deliveries that it keeps away wait in the plugin's own queue and do not count as attempts. While something
//! may wait there, new deliveries from the source go behind it. Under a rate both compete for the same few
//! calls, and newer deliveries must not keep the older ones waiting forever. The caller passes in the time.

use std::time::{Duration, Instant};

use config::{Rate, Spell, ThrottlePolicy};
use jiff::{SignedDuration, Timestamp};

use crate::token_bucket::TokenBucket;

/// How long a delivery taken from the plugin's queue may wait for its turn. If the next turn is further away,
/// nothing is taken. This is far below RabbitMQ's acknowledgement timeout of half an hour.
const IN_HAND_MAX: Duration = Duration::from_secs(10);
/// Shortest interval between two log lines about the rate.
const TOLD_EVERY: Duration = Duration::from_mins(10);

/// The queue that an attempt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeliveryOrigin {
    Source,
    Backlog,
}

/// The time on both clocks. The rate uses the monotonic clock, quiet hours use the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReading {
    pub(super) instant: Instant,
    pub(super) wall: Timestamp,
}

impl ClockReading {
    pub(super) fn read() -> Self {
        Self { instant: Instant::now(), wall: Timestamp::now() }
    }

    fn until(self, wall: Timestamp) -> Instant {
        self.instant + Duration::try_from(wall.duration_since(self.wall)).unwrap_or_default()
    }

    fn at(self, instant: Instant) -> Timestamp {
        let wait = SignedDuration::try_from(instant.saturating_duration_since(self.instant)).unwrap_or_default();
        self.wall.saturating_add(wait).unwrap_or(Timestamp::MAX)
    }
}

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThrottleDecision {
    Now,
    Later { why: ThrottleReason, until: Instant },
}

/// Why deliveries to a healthy plugin have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThrottleReason {
    Quiet,
    Rate,
}

impl ThrottleDecision {
    /// Returns whether the turn is too far away to take anything from the queue.
    pub(super) fn is_far(self, now: Instant) -> bool {
        match self {
            Self::Now => false,
            Self::Later { why: ThrottleReason::Quiet, .. } => true,
            Self::Later { why: ThrottleReason::Rate, until } => until.saturating_duration_since(now) > IN_HAND_MAX,
        }
    }
}

/// A change that is worth logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ThrottleChange {
    Quiet { end: String },
    QuietIsOver,
    OverRate(Rate),
    CaughtUp,
}

/// Why deliveries wait, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThrottleState {
    pub why: ThrottleReason,
    pub reason: String,
    /// When the next call may be made.
    pub until: Timestamp,
}

#[derive(Debug)]
pub(super) struct Throttle {
    policy: ThrottlePolicy,
    bucket: Option<TokenBucket>,
    spell: Spell,
    /// Whether something may wait in the plugin's queue for a turn under the rate.
    behind: bool,
    /// Whether the rate has kept a delivery away since the queue was last empty.
    limited: bool,
    told: Option<ThrottleReason>,
    told_of_rate_at: Option<Instant>,
}

impl Throttle {
    pub(super) fn new(policy: ThrottlePolicy, now: ClockReading) -> Self {
        let bucket = policy.rate.map(|rate| TokenBucket::new(rate, now.instant));
        let spell = policy.quiet_hours.at(now.wall);
        // An earlier host may have left deliveries in the queue, and those come first.
        let behind = bucket.is_some();
        Self { policy, bucket, spell, behind, limited: false, told: None, told_of_rate_at: None }
    }

    /// Applies a new policy after the plugin's files changed.
    pub(super) fn change(&mut self, policy: ThrottlePolicy, now: ClockReading) {
        let was_until = std::mem::replace(&mut self.spell, policy.quiet_hours.at(now.wall)).until;
        if self.told == Some(ThrottleReason::Quiet) && self.spell.is_quiet && self.spell.until != was_until {
            self.told = None;
        }
        match (&mut self.bucket, policy.rate) {
            (Some(bucket), Some(rate)) => bucket.change(rate, now.instant),
            (bucket, Some(rate)) => {
                *bucket = Some(TokenBucket::new(rate, now.instant));
                self.behind = true;
            }
            (bucket, None) => {
                *bucket = None;
                (self.behind, self.limited) = (false, false);
            }
        }
        self.policy = policy;
    }

    /// Asks whether a delivery in hand may go to the plugin.
    pub(super) fn look(&mut self, origin: DeliveryOrigin, now: ClockReading) -> ThrottleDecision {
        let turn = self.turn(origin, now);
        if let (ThrottleDecision::Later { why, until }, true) = (turn, self.bucket.is_some()) {
            self.behind = true;
            self.limited |= why == ThrottleReason::Rate && until > now.instant;
        }
        turn
    }

    /// Takes a token for a call, if the call may be made.
    pub(super) fn take(&mut self, origin: DeliveryOrigin, now: ClockReading) -> ThrottleDecision {
        let turn = self.look(origin, now);
        if let (ThrottleDecision::Now, Some(bucket)) = (turn, &mut self.bucket)
            && let Err(until) = bucket.take(now.instant)
        {
            return ThrottleDecision::Later { why: ThrottleReason::Rate, until };
        }
        turn
    }

    /// Asks whether a delivery may be taken from the plugin's queue.
    pub(super) fn draw(&mut self, now: ClockReading) -> ThrottleDecision {
        let turn = self.peek(now);
        self.limited |= self.behind && matches!(turn, ThrottleDecision::Later { why: ThrottleReason::Rate, .. });
        turn
    }

    /// Answers the same without recording that the rate kept anything away.
    pub(super) fn peek(&mut self, now: ClockReading) -> ThrottleDecision {
        self.turn(DeliveryOrigin::Backlog, now)
    }

    fn turn(&mut self, origin: DeliveryOrigin, now: ClockReading) -> ThrottleDecision {
        if !self.spell.holds(now.wall) {
            self.spell = self.policy.quiet_hours.at(now.wall);
        }
        if self.spell.is_quiet {
            return ThrottleDecision::Later { why: ThrottleReason::Quiet, until: now.until(self.spell.until) };
        }
        let Some(bucket) = &self.bucket else { return ThrottleDecision::Now };
        let until = bucket.next(now.instant);
        if until > now.instant || (origin == DeliveryOrigin::Source && self.behind) {
            return ThrottleDecision::Later { why: ThrottleReason::Rate, until };
        }
        ThrottleDecision::Now
    }

    /// Returns how many deliveries from the plugin's queue may be held at once, up to `max`. The last of them
    /// must still get its turn soon enough.
    pub(super) fn in_hand(&self, max: usize) -> usize {
        let Some(bucket) = &self.bucket else { return max };
        let turns = IN_HAND_MAX.as_nanos() / bucket.rate().interval().as_nanos().max(1);
        usize::try_from(turns).unwrap_or(max).clamp(1, max.max(1))
    }

    /// Returns whether the throttle never keeps anything away, and has nothing left to report.
    pub(super) fn is_free(&self) -> bool {
        self.bucket.is_none() && self.policy.quiet_hours.is_empty() && self.told.is_none()
    }

    pub(super) fn has_rate(&self) -> bool {
        self.bucket.is_some()
    }

    /// Returns whether each call makes the next one far away.
    pub(super) fn is_slow(&self) -> bool {
        self.bucket.is_some_and(|bucket| bucket.rate().interval() > IN_HAND_MAX)
    }

    /// Returns when to look again even though nothing happened, because quiet hours begin or end.
    pub(super) fn changes_at(&self, now: ClockReading) -> Option<Instant> {
        (!self.policy.quiet_hours.is_empty()).then(|| now.until(self.spell.until))
    }

    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Notes that nothing waits in the plugin's queue any more.
    pub(super) fn caught_up(&mut self) {
        (self.behind, self.limited) = (false, false);
    }

    /// Returns the next change to log. Call it until it returns `None`.
    pub(super) fn news(&mut self, now: ClockReading) -> Option<ThrottleChange> {
        match self.told {
            Some(ThrottleReason::Quiet) if !self.spell.is_quiet => {
                self.told = None;
                Some(ThrottleChange::QuietIsOver)
            }
            Some(ThrottleReason::Rate) if !self.limited => {
                self.told = None;
                Some(ThrottleChange::CaughtUp)
            }
            Some(ThrottleReason::Quiet) => None,
            _ if self.spell.is_quiet => {
                self.told = Some(ThrottleReason::Quiet);
                Some(ThrottleChange::Quiet { end: self.spell.end() })
            }
            None if self.limited => {
                let rate = self.bucket?.rate();
                if self.told_of_rate_at.is_some_and(|told| now.instant.saturating_duration_since(told) < TOLD_EVERY) {
                    return None;
                }
                (self.told, self.told_of_rate_at) = (Some(ThrottleReason::Rate), Some(now.instant));
                Some(ThrottleChange::OverRate(rate))
            }
            Some(ThrottleReason::Rate) | None => None,
        }
    }

    /// Returns why deliveries wait, or `None` if they do not.
    pub(super) fn standing(&mut self, now: ClockReading) -> Option<ThrottleState> {
        match self.peek(now) {
            ThrottleDecision::Later { why: ThrottleReason::Quiet, .. } => {
                let reason = format!("quiet hours until {}", self.spell.end());
                Some(ThrottleState { why: ThrottleReason::Quiet, reason, until: self.spell.until })
            }
            ThrottleDecision::Now if !self.limited => None,
            ThrottleDecision::Now | ThrottleDecision::Later { why: ThrottleReason::Rate, .. } => {
                let bucket = self.bucket.filter(|_| self.limited)?;
                let until = now.at(bucket.next(now.instant));
                let reason = format!("over its rate of {}; the next call is made {until:.0}", bucket.rate());
                Some(ThrottleState { why: ThrottleReason::Rate, reason, until })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use config::PluginConfig;
    use config::Policies;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(toml: &str) -> ThrottlePolicy {
        let path = std::path::Path::new("email.toml");
        PluginConfig::of_text(path, Some(toml), &Policies::default()).unwrap().policies.throttle
    }

    fn start() -> ClockReading {
        ClockReading { instant: Instant::now(), wall: "2026-11-26T20:00:00Z".parse().unwrap() }
    }

    impl std::ops::Add<Duration> for ClockReading {
        type Output = Self;

        fn add(self, time: Duration) -> Self {
            Self { instant: self.instant + time, wall: self.wall + SignedDuration::try_from(time).unwrap() }
        }
    }

    fn later(why: ThrottleReason, until: ClockReading) -> ThrottleDecision {
        ThrottleDecision::Later { why, until: until.instant }
    }

    #[test]
    fn without_a_policy_every_turn_is_now() {
        let now = start();
        let mut throttle = Throttle::new(policy(""), now);
        for origin in [DeliveryOrigin::Source, DeliveryOrigin::Backlog] {
            assert_eq!(throttle.take(origin, now), ThrottleDecision::Now);
        }
        assert!(throttle.is_free());
        assert_eq!((throttle.in_hand(7), throttle.is_behind(), throttle.changes_at(now)), (7, false, None));
        assert_eq!((throttle.news(now), throttle.standing(now)), (None, None));
    }

    #[test]
    fn what_is_new_goes_behind_what_waits() {
        let now = start();
        let mut throttle = Throttle::new(policy("rate = \"1/s\""), now);
        assert_eq!(
            throttle.take(DeliveryOrigin::Source, now),
            later(ThrottleReason::Rate, now),
            "an earlier host may have left something"
        );
        throttle.caught_up();
        assert_eq!(throttle.take(DeliveryOrigin::Source, now), ThrottleDecision::Now);
        assert_eq!(throttle.take(DeliveryOrigin::Source, now), later(ThrottleReason::Rate, now + SECOND));
        let now = now + SECOND;
        assert_eq!(
            throttle.take(DeliveryOrigin::Source, now),
            later(ThrottleReason::Rate, now),
            "there is a turn, but not for it"
        );
        assert_eq!(throttle.take(DeliveryOrigin::Backlog, now), ThrottleDecision::Now);
        let now = now + SECOND;
        assert_eq!(throttle.take(DeliveryOrigin::Source, now), later(ThrottleReason::Rate, now), "there may be more");
        throttle.caught_up();
        assert_eq!(throttle.take(DeliveryOrigin::Source, now), ThrottleDecision::Now);
    }

    #[test]
    fn as_many_are_in_hand_as_have_their_turn_soon() {
        for (rate, in_hand) in [("1000/s", 20), ("1/s", 10), ("6/min", 1), ("1/h", 1)] {
            let throttle = Throttle::new(policy(&format!("rate = {rate:?}")), start());
            assert_eq!(throttle.in_hand(20), in_hand, "{rate}");
        }
        let now = start();
        let mut throttle = Throttle::new(policy("rate = \"5/min\""), now);
        assert!(!throttle.draw(now).is_far(now.instant));
        assert_eq!(throttle.take(DeliveryOrigin::Backlog, now), ThrottleDecision::Now);
        assert!(throttle.is_slow() && throttle.draw(now).is_far(now.instant), "twelve seconds");
        let now = now + 2 * SECOND;
        assert!(!throttle.draw(now).is_far(now.instant));
    }

    #[test]
    fn in_quiet_hours_nothing_is_called_and_a_rate_does_not_run_ahead() {
        let now = start();
        let mut throttle = Throttle::new(policy("rate = \"1/min\"\nquiet-hours = \"22:00-07:00 Europe/Berlin\""), now);
        throttle.caught_up();
        assert!(!throttle.is_free());
        let (begin, end) = (now + Duration::from_hours(1), now + Duration::from_hours(10));
        assert_eq!(throttle.changes_at(now), Some(begin.instant));
        assert_eq!(throttle.take(DeliveryOrigin::Source, now), ThrottleDecision::Now);
        for origin in [DeliveryOrigin::Source, DeliveryOrigin::Backlog] {
            assert_eq!(throttle.take(origin, begin), later(ThrottleReason::Quiet, end));
        }
        assert!(throttle.draw(begin).is_far(begin.instant) && throttle.draw(begin + SECOND).is_far(begin.instant));
        assert_eq!(
            throttle.take(DeliveryOrigin::Source, end),
            later(ThrottleReason::Rate, end),
            "first what has waited"
        );
        assert_eq!(throttle.take(DeliveryOrigin::Backlog, end), ThrottleDecision::Now);
        assert_eq!(throttle.take(DeliveryOrigin::Backlog, end), later(ThrottleReason::Rate, end + 60 * SECOND));
    }

    #[test]
    fn a_clock_that_is_set_is_followed() {
        let now = start();
        let mut throttle = Throttle::new(policy("quiet-hours = \"22:00-07:00 Europe/Berlin\""), now);
        let set = |to: &str| ClockReading { instant: now.instant, wall: to.parse().unwrap() };
        assert_eq!(throttle.take(DeliveryOrigin::Source, now), ThrottleDecision::Now);
        assert!(matches!(
            throttle.take(DeliveryOrigin::Source, set("2026-11-27T00:00:00Z")),
            ThrottleDecision::Later { .. }
        ));
        assert_eq!(throttle.take(DeliveryOrigin::Source, set("2026-11-26T12:00:00Z")), ThrottleDecision::Now);
    }

    #[test]
    fn a_change_takes_effect_at_once() {
        let now = start();
        let mut throttle = Throttle::new(policy("rate = \"1/day\""), now);
        assert_eq!(throttle.take(DeliveryOrigin::Backlog, now), ThrottleDecision::Now);
        assert!(throttle.draw(now).is_far(now.instant));
        throttle.change(policy("rate = \"10/s\""), now);
        assert_eq!(throttle.draw(now), later(ThrottleReason::Rate, now + SECOND / 10));
        assert!(throttle.is_behind(), "what waits still comes first");
        throttle.change(policy("quiet-hours = \"12:00-23:00 UTC\""), now);
        assert_eq!(
            throttle.take(DeliveryOrigin::Source, now),
            later(ThrottleReason::Quiet, now + Duration::from_hours(3))
        );
        throttle.change(policy(""), now);
        assert_eq!(throttle.take(DeliveryOrigin::Source, now), ThrottleDecision::Now);
    }

    #[test]
    fn each_thing_is_told_once() {
        let now = start();
        let told = |throttle: &mut Throttle, now| std::iter::from_fn(|| throttle.news(now)).collect::<Vec<_>>();
        let mut throttle = Throttle::new(policy("rate = \"1/h\"\nquiet-hours = \"20:00-21:00 UTC\""), now);
        assert_eq!(
            throttle.look(DeliveryOrigin::Source, now),
            later(ThrottleReason::Quiet, now + Duration::from_hours(1))
        );
        assert_eq!(told(&mut throttle, now), [ThrottleChange::Quiet { end: "2026-11-26 21:00 UTC".to_owned() }]);
        assert_eq!(told(&mut throttle, now), []);
        let standing = throttle.standing(now).unwrap();
        assert_eq!(
            (standing.why, &*standing.reason),
            (ThrottleReason::Quiet, "quiet hours until 2026-11-26 21:00 UTC")
        );

        let now = now + Duration::from_hours(1);
        assert_eq!(throttle.take(DeliveryOrigin::Backlog, now), ThrottleDecision::Now);
        assert!(
            throttle.look(DeliveryOrigin::Source, now) != ThrottleDecision::Now
                && throttle.look(DeliveryOrigin::Source, now) != ThrottleDecision::Now
        );
        let rate = policy("rate = \"1/h\"").rate.unwrap();
        assert_eq!(told(&mut throttle, now), [ThrottleChange::QuietIsOver, ThrottleChange::OverRate(rate)]);
        let standing = throttle.standing(now).unwrap();
        let reason = "over its rate of 1/h; the next call is made 2026-11-26T22:00:00Z";
        assert_eq!((standing.why, &*standing.reason), (ThrottleReason::Rate, reason));
        throttle.caught_up();
        assert_eq!(told(&mut throttle, now), [ThrottleChange::CaughtUp]);
        throttle.look(DeliveryOrigin::Source, now);
        assert_eq!(told(&mut throttle, now), [], "a moment ago it was told");
        throttle.look(DeliveryOrigin::Source, now + TOLD_EVERY);
        assert_eq!(told(&mut throttle, now + TOLD_EVERY), [ThrottleChange::OverRate(rate)]);
    }
}
