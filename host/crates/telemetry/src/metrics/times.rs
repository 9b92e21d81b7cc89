//! A histogram of durations, from which percentiles can be estimated.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bound of each bucket in microseconds; the last bucket is unbounded. Coarser than a plot can show, and fine
/// enough for alerts.
pub const BOUNDS: [u64; 43] = [
    10,
    15,
    20,
    30,
    50,
    70,
    100,
    150,
    200,
    300,
    500,
    700,
    1_000,
    1_500,
    2_000,
    3_000,
    5_000,
    7_000,
    10_000,
    15_000,
    20_000,
    30_000,
    50_000,
    70_000,
    100_000,
    150_000,
    200_000,
    300_000,
    500_000,
    700_000,
    1_000_000,
    1_500_000,
    2_000_000,
    3_000_000,
    5_000_000,
    7_000_000,
    10_000_000,
    15_000_000,
    20_000_000,
    30_000_000,
    50_000_000,
    70_000_000,
    100_000_000,
];
const STEPS: usize = BOUNDS.len() + 1;

/// A histogram that can be written and read concurrently.
#[derive(Debug)]
pub struct Times {
    counts: [AtomicU64; STEPS],
    sum_micros: AtomicU64,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; STEPS], sum_micros: AtomicU64::new(0) }
    }
}

/// A snapshot of a histogram, or the difference of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    counts: [u64; STEPS],
    sum_micros: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: [0; STEPS], sum_micros: 0 }
    }
}

impl Times {
    pub fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let step = BOUNDS.partition_point(|bound| *bound < micros);
        self.counts[step].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn tally(&self) -> Tally {
        Tally {
            counts: std::array::from_fn(|step| self.counts[step].load(Ordering::Relaxed)),
            sum_micros: self.sum_micros.load(Ordering::Relaxed),
        }
    }
}

impl Tally {
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }

    /// Returns how many durations were at most `micros`, which must be one of [`BOUNDS`].
    pub fn within(&self, micros: u64) -> u64 {
        self.counts[..=BOUNDS.partition_point(|bound| *bound < micros)].iter().sum()
    }

    /// Returns the counts since an earlier snapshot.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            counts: std::array::from_fn(|step| self.counts[step].saturating_sub(before.counts[step])),
            sum_micros: self.sum_micros.saturating_sub(before.sum_micros),
        }
    }

    /// Estimates a percentile in microseconds. Returns `None` if nothing was counted.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let count = self.count();
        let rank = (count * percent).div_ceil(100).max(1);
        let (mut before, mut start) = (0, 0);
        for (counted, end) in self.counts.iter().zip(BOUNDS.into_iter().chain([BOUNDS[BOUNDS.len() - 1]])) {
            if *counted > 0 && before + counted >= rank {
                // Assume that durations are spread evenly over the bucket.
                return Some(start + (end - start) * (rank - before) / counted);
            }
            before += counted;
            start = end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_share_can_be_told_to_within_a_step() {
        let times = Times::default();
        assert_eq!(times.tally().percentile(50), None);
        for micros in 1..=1000 {
            times.took(Duration::from_micros(micros * 10));
        }
        let tally = times.tally();
        assert_eq!((tally.count(), tally.sum().as_micros()), (1000, 5_005_000));
        assert_eq!([100, 5_000, 10_000].map(|bound| tally.within(bound)), [10, 500, 1000]);
        for (percent, expected) in [(0, 10), (50, 5_000), (99, 9_900), (100, 10_000)] {
            assert_eq!(tally.percentile(percent), Some(expected), "{percent}");
        }
        times.took(Duration::from_hours(1));
        assert_eq!(times.tally().since(&tally).percentile(50), Some(100_000_000), "no longer than can be told");
        assert_eq!(times.tally().since(&times.tally()), Tally::default());
    }
}
