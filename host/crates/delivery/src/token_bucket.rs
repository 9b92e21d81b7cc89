//! A token bucket that spaces calls to keep to a rate. It is full after a time without calls. Each call takes
//! one token, and tokens return one by one (GCRA, the generic cell rate algorithm,
//! <https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm>).
//!
//! It is small enough to be our own. `governor` offers keys, atomics and clocks that are not needed here. It
//! can neither start with a bucket that is not full nor change its rate. The caller passes in the time.

use std::time::{Duration, Instant};

use config::Rate;

#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBucket {
    rate: Rate,
    /// When the bucket would be full if no more calls were made.
    full_at: Instant,
}

impl TokenBucket {
    /// Creates a bucket with one token. With a full one, a host that restarts again and again would exceed the
    /// rate. With an empty one, it would never call.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now + tolerance(rate) }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Returns when the next call may be made, but never a time before `now`.
    pub(super) fn next(&self, now: Instant) -> Instant {
        self.full_at.checked_sub(tolerance(self.rate)).map_or(now, |next| next.max(now))
    }

    /// Takes a token. The error is the time from which a call may be made.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let next = self.next(now);
        if next > now {
            return Err(next);
        }
        self.full_at = self.full_at.max(now) + self.rate.interval();
        Ok(())
    }

    /// Changes the rate. Earlier calls still count, but a wait that only the old rate would have required does
    /// not: at worst the bucket is empty.
    pub(super) fn change(&mut self, rate: Rate, now: Instant) {
        let empty = now + tolerance(rate) + rate.interval();
        *self = Self { rate, full_at: self.full_at.min(empty) };
    }
}

/// Returns how far calls made at once may run ahead of the rate.
fn tolerance(rate: Rate) -> Duration {
    rate.interval() * rate.burst().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(limit: &str, burst: u32) -> Rate {
        limit.parse::<Rate>().unwrap().with_burst(burst)
    }

    /// Counts how many calls may be made at once.
    fn drain(bucket: &mut TokenBucket, now: Instant) -> usize {
        (0..1000).take_while(|_| bucket.take(now).is_ok()).count()
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn calls_are_as_far_apart_as_the_rate_says() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(rate("30/min", 1), now);
        for count in 0..5 {
            let now = now + Duration::from_secs(2) * count;
            assert_eq!(bucket.take(now), Ok(()));
            assert_eq!(bucket.take(now), Err(now + Duration::from_secs(2)));
        }
        assert_eq!(drain(&mut bucket, now + HOUR), 1, "a time without calls is not made up for");
    }

    #[test]
    fn a_burst_is_there_after_a_time_without_calls_but_not_after_a_start() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(rate("30/min", 5), now);
        assert_eq!(drain(&mut bucket, now), 1);
        assert_eq!(drain(&mut bucket, now + Duration::from_secs(6)), 3);
        assert_eq!(drain(&mut bucket, now + HOUR), 5);
    }

    #[test]
    fn another_rate_takes_effect_at_once() {
        let now = Instant::now();
        let mut bucket = TokenBucket::new(rate("1/day", 1), now);
        assert_eq!(drain(&mut bucket, now), 1);
        bucket.change(rate("5/s", 1), now);
        assert_eq!(bucket.take(now), Err(now + Duration::from_millis(200)));
        bucket.change(rate("1/h", 3), now);
        assert_eq!(drain(&mut bucket, now + HOUR), 3);
        bucket.change(rate("1/h", 3), now + HOUR);
        assert_eq!(drain(&mut bucket, now + HOUR), 0, "the same rate again gives nothing");
    }

    proptest! {
        /// A caller that calls whenever it may: no stretch of time has more calls than rate and burst allow. In the
        /// end the bucket is empty, so no allowed call was missed.
        #[test]
        fn the_rate_is_kept(limit in 1_u32..50, burst in 1_u32..10, pauses in proptest::collection::vec(0_u64..500, 1..300)) {
            let rate = rate(&format!("{limit}/s"), burst);
            let begun = Instant::now();
            let (mut bucket, mut now, mut calls) = (TokenBucket::new(rate, begun), begun, Vec::new());
            for pause in pauses {
                now += Duration::from_millis(pause);
                while bucket.take(now).is_ok() {
                    calls.push(now);
                }
            }
            for (first, from) in calls.iter().enumerate() {
                for (last, to) in calls.iter().enumerate().skip(first) {
                    let allowed = (to.duration_since(*from).as_nanos() / rate.interval().as_nanos()) + u128::from(burst);
                    prop_assert!((last - first + 1) as u128 <= allowed, "{first} to {last}");
                }
            }
            prop_assert!(bucket.next(now) > now);
        }
    }
}
