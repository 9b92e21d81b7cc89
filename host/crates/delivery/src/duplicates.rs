//! Drops duplicates: an event that a publisher sends twice within a time window is delivered once by this host.
//!
//! An event counts as seen only when its message is settled. A message that is offered again because its first
//! delivery was cut off is not a duplicate. The events are remembered in memory, up to a limit. Other hosts
//! know nothing of them, nor does this one after a restart.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use uuid::Uuid;

/// Maximum number of remembered events, whatever the window: about 10 MiB.
const REMEMBERED_MAX: usize = 100_000;

#[derive(Clone)]
pub struct Duplicates {
    shared: Arc<DuplicatesInner>,
}

struct DuplicatesInner {
    /// Length of the window in milliseconds.
    window: AtomicU64,
    seen: Mutex<SeenEvents>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct SeenEvents {
    by_key: HashMap<Uuid, SeenState>,
    /// Settled events, oldest first.
    settled: VecDeque<(Instant, Uuid)>,
}

enum SeenState {
    /// Being delivered. The `Notify` fires when that ends.
    InFlight(Arc<Notify>),
    Settled,
}

/// The result of claiming an event.
pub(super) enum Claim {
    /// The caller may deliver the event. `None` if duplicates are not remembered.
    New(Option<Claimed>),
    /// The event was delivered before.
    Duplicate,
}

/// An event that is being delivered. Dropping the claim means that it was not settled.
pub(super) struct Claimed {
    shared: Arc<DuplicatesInner>,
    key: Uuid,
    ended: Arc<Notify>,
}

impl Duplicates {
    pub fn new(window: Duration) -> Self {
        Self {
            shared: Arc::new(DuplicatesInner {
                window: AtomicU64::new(millis(window)),
                seen: Mutex::default(),
                dropped: AtomicU64::new(0),
            }),
        }
    }

    /// Claims an event. Waits while the same event is in flight, because only its end tells whether this one is
    /// needed.
    pub(super) async fn claim(&self, key: Uuid) -> Claim {
        if self.shared.window().is_zero() {
            return Claim::New(None);
        }
        loop {
            let other = {
                let mut seen = self.shared.seen();
                seen.forget(Instant::now(), self.shared.window());
                match seen.by_key.get(&key) {
                    Some(SeenState::Settled) => {
                        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                        return Claim::Duplicate;
                    }
                    Some(SeenState::InFlight(other)) => Arc::clone(other).notified_owned(),
                    None => {
                        let ended = Arc::new(Notify::new());
                        seen.by_key.insert(key, SeenState::InFlight(Arc::clone(&ended)));
                        return Claim::New(Some(Claimed { shared: Arc::clone(&self.shared), key, ended }));
                    }
                }
            };
            other.await;
        }
    }

    /// Changes the window from now on.
    pub fn remember_for(&self, window: Duration) {
        self.shared.window.store(millis(window), Ordering::Relaxed);
    }

    /// Returns the number of duplicates since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Claimed {
    pub(super) fn settled(self) {
        let mut seen = self.shared.seen();
        seen.by_key.insert(self.key, SeenState::Settled);
        seen.settled.push_back((Instant::now(), self.key));
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut seen = self.shared.seen();
        // Unless it was settled, the next claim may deliver the event.
        if matches!(seen.by_key.get(&self.key), Some(SeenState::InFlight(_))) {
            seen.by_key.remove(&self.key);
        }
        self.ended.notify_waiters();
    }
}

/// Converts the window, which the configuration limits to less than a day, so it always fits.
fn millis(window: Duration) -> u64 {
    u64::try_from(window.as_millis()).unwrap_or(u64::MAX)
}

impl DuplicatesInner {
    fn window(&self) -> Duration {
        Duration::from_millis(self.window.load(Ordering::Relaxed))
    }

    fn seen(&self) -> MutexGuard<'_, SeenEvents> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SeenEvents {
    fn forget(&mut self, now: Instant, window: Duration) {
        while let Some((at, key)) = self.settled.front().copied() {
            if self.settled.len() <= REMEMBERED_MAX && now.saturating_duration_since(at) < window {
                break;
            }
            self.settled.pop_front();
            self.by_key.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Uuid = Uuid::from_u128(1);

    fn claimed(claim: Claim) -> Claimed {
        match claim {
            Claim::New(Some(claimed)) => claimed,
            Claim::New(None) | Claim::Duplicate => panic!("it is new"),
        }
    }

    #[tokio::test]
    async fn only_what_was_settled_is_a_duplicate() {
        let duplicates = Duplicates::new(Duration::from_mins(1));
        drop(claimed(duplicates.claim(KEY).await));
        claimed(duplicates.claim(KEY).await).settled();
        assert!(matches!(duplicates.claim(KEY).await, Claim::Duplicate));
        assert!(matches!(duplicates.claim(Uuid::from_u128(2)).await, Claim::New(_)));
        assert_eq!(duplicates.dropped(), 1);
    }

    #[tokio::test]
    async fn a_second_one_waits_for_the_end_of_the_first() {
        let duplicates = Duplicates::new(Duration::from_mins(1));
        for settle in [false, true] {
            let first = claimed(duplicates.claim(KEY).await);
            let mut second = Box::pin(duplicates.claim(KEY));
            assert!(futures_util::poll!(&mut second).is_pending());
            if settle {
                first.settled();
            } else {
                drop(first);
            }
            assert_eq!(matches!(second.await, Claim::Duplicate), settle);
        }
    }

    #[tokio::test]
    async fn a_window_of_nothing_switches_it_off() {
        let duplicates = Duplicates::new(Duration::ZERO);
        for _ in 0..2 {
            assert!(matches!(duplicates.claim(KEY).await, Claim::New(None)));
        }
    }

    #[test]
    fn the_window_and_the_number_are_bounds() {
        let (mut seen, start) = (SeenEvents::default(), Instant::now());
        for number in 0..=REMEMBERED_MAX {
            let key = Uuid::from_u128(number as u128);
            seen.by_key.insert(key, SeenState::Settled);
            seen.settled.push_back((start, key));
        }
        seen.forget(start, Duration::from_secs(1));
        assert_eq!(seen.by_key.len(), REMEMBERED_MAX);
        seen.forget(start + Duration::from_secs(1), Duration::from_secs(1));
        assert!(seen.by_key.is_empty());
    }
}
