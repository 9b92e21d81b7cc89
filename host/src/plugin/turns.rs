//! A turn lets a guest that computes for long go on for one tick of the clock. There are fewer turns
//! than cores, so that guests which never end leave one core to all others, whose calls take
//! far less than a tick.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A turn ends with the guest's next tick, or after this, if it waits for the host meanwhile.
const TURN_MAX: Duration = Duration::from_millis(20);

/// The turns of one engine.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    free: Arc<Semaphore>,
}

/// The turn that one guest has, if any.
#[derive(Debug, Default)]
pub(super) struct Turn {
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Turns {
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { free: Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))) }
    }

    /// Ends this guest's turn. The future ends when it has the next one; first come, first served.
    pub(super) fn next(&self, turn: &mut Turn) -> impl Future<Output = ()> + Send + 'static {
        turn.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        *turn = Turn::default();
        let (free, held) = (Arc::clone(&self.free), Arc::clone(&turn.held));
        async move {
            // It is never closed; if it were, the guest would go on without a turn.
            let permit = free.acquire_owned().await.ok();
            *held.lock().unwrap_or_else(PoisonError::into_inner) = permit;
            tokio::spawn(async move {
                tokio::time::sleep(TURN_MAX).await;
                held.lock().unwrap_or_else(PoisonError::into_inner).take();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_ends_with_the_next_one_or_by_itself() {
        let turns = Turns { free: Arc::new(Semaphore::new(1)) };
        let (mut one, mut other) = (Turn::default(), Turn::default());
        turns.next(&mut one).await;
        let mut waiting = Box::pin(turns.next(&mut other));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        // Its next tick: it queues up behind the one that waits.
        let mut again = Box::pin(turns.next(&mut one));
        assert!(futures_util::poll!(&mut again).is_pending());
        waiting.await;
        assert!(futures_util::poll!(&mut again).is_pending());
        // The other one never ticks.
        again.await;
    }
}
