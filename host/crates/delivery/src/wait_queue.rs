//! The wait queue in front of a plugin's slots. First attempts wait here for a slot, and occupy part of the
//! prefetch window meanwhile. Deliveries that would wait too long spill, which leaves the window to other
//! plugins.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a first attempt waits for a slot before it spills.
const PATIENCE: Duration = Duration::from_millis(250);
/// Length below which the queue may always be joined, however slowly it moves: half of the default prefetch
/// window.
const SHORT: usize = 128;
/// Longest expected wait at which a longer queue may still be joined. Spilling costs more than a wait this
/// short.
const SHORT_WAIT: Duration = PATIENCE.checked_div(4).unwrap();
/// Weight of the average against one new measurement.
const WEIGHT: u64 = 8;

#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    length: AtomicUsize,
    /// Recent average of the nanoseconds that the queue takes for each waiter. 0 means unknown, and counts as
    /// fast.
    each: AtomicU64,
}

impl WaitQueue {
    /// Waits for `room`. Returns `None` if that takes, or is expected to take, too long for a first attempt.
    pub(super) async fn wait<T>(&self, room: impl Future<Output = T>) -> Option<T> {
        let ahead = self.length.fetch_add(1, Ordering::Relaxed);
        let _in_line = Waiting(self);
        if !may_join(ahead, self.each.load(Ordering::Relaxed)) {
            return None;
        }
        let began = Instant::now();
        let room = tokio::time::timeout(PATIENCE, room).await.ok();
        // Learn the queue's pace only from waiters that had someone ahead of them. A lone waiter measures one
        // attempt, which says nothing about how fast the queue moves.
        if ahead > 0 {
            let each = learnt(self.each.load(Ordering::Relaxed), began.elapsed(), ahead);
            // If two waiters store at once, one measurement is lost. That does no harm.
            self.each.store(each, Ordering::Relaxed);
        }
        room
    }
}

struct Waiting<'l>(&'l WaitQueue);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.length.fetch_sub(1, Ordering::Relaxed);
    }
}

fn may_join(ahead: usize, each: u64) -> bool {
    ahead < SHORT || u128::from(each) * (ahead as u128) < SHORT_WAIT.as_nanos()
}

/// Returns the new average after a waiter with `ahead` others in front of it has waited.
fn learnt(before: u64, waited: Duration, ahead: usize) -> u64 {
    let now = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX) / (ahead as u64 + 1);
    let each =
        if before == 0 { now } else { (before / WEIGHT).saturating_mul(WEIGHT - 1).saturating_add(now / WEIGHT) };
    each.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_line_may_always_be_joined_and_a_long_one_if_it_moves() {
        let micros = |micros| Duration::from_micros(micros).as_nanos().try_into().unwrap();
        assert!(may_join(0, 0));
        assert!(may_join(SHORT - 1, micros(100_000)));
        assert!(may_join(SHORT, 0), "nothing is known of it");
        assert!(may_join(SHORT, micros(100)), "12.8 ms");
        assert!(!may_join(SHORT, micros(1000)), "128 ms");
        assert!(!may_join(1000, micros(100)), "100 ms");
    }

    #[test]
    fn it_learns_from_those_who_waited() {
        let seen = |waited, ahead| learnt(0, Duration::from_micros(waited), ahead);
        assert_eq!(seen(1000, 9), 100_000);
        assert_eq!(seen(0, 9), 1, "known, and fast");
        let mut each = seen(1000, 9);
        // The queue stands still: each waiter gives up behind a full queue.
        for _ in 0..32 {
            each = learnt(each, PATIENCE, SHORT);
        }
        assert!(!may_join(SHORT, each), "{each}");
        for _ in 0..32 {
            each = learnt(each, Duration::from_millis(2), SHORT);
        }
        assert!(may_join(SHORT, each), "{each}");
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_line() {
        let line = WaitQueue::default();
        assert_eq!(line.wait(std::future::pending::<()>()).await, None);
        assert_eq!(line.wait(async { 1 }).await, Some(1));
        assert_eq!(line.length.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_long_line_that_is_slow_is_left_at_once() {
        let line = WaitQueue::default();
        line.length.store(SHORT, Ordering::Relaxed);
        assert_eq!(line.wait(async { 1 }).await, Some(1));
        line.each.store(1_000_000, Ordering::Relaxed);
        assert_eq!(line.wait(async { 1 }).await, None);
    }
}
