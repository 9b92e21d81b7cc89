//! Slots limit the concurrent calls of one plugin. First attempts and the backlog each have their own, so that
//! neither starves the other.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Share of the slots that is reserved for the backlog, in percent.
const BACKLOG_PERCENT: usize = 25;

pub(super) struct Slots {
    pub(super) first: Arc<Semaphore>,
    first_count: usize,
    /// Shares the semaphore of `first` if there is only one slot in all.
    backlog: Arc<Semaphore>,
    backlog_count: usize,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        if count < 2 {
            let only = Arc::new(Semaphore::new(1));
            return Self { first: Arc::clone(&only), first_count: 1, backlog: only, backlog_count: 1 };
        }
        let backlog = (count * BACKLOG_PERCENT / 100).max(1);
        let first = count - backlog;
        Self {
            first: Arc::new(Semaphore::new(first)),
            first_count: first,
            backlog: Arc::new(Semaphore::new(backlog)),
            backlog_count: backlog,
        }
    }

    /// Returns the maximum number of concurrent attempts from the backlog: its own slots, plus half of the
    /// others while those are idle.
    pub(super) fn backlog_max(&self) -> usize {
        self.backlog_count + self.first_count / 2
    }

    pub(super) async fn for_backlog(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.backlog).try_acquire_owned() {
            return Some(slot);
        }
        if self.first.available_permits() > self.first_count.div_ceil(2)
            && let Ok(slot) = Arc::clone(&self.first).try_acquire_owned()
        {
            return Some(slot);
        }
        Arc::clone(&self.backlog).acquire_owned().await.ok()
    }
}
