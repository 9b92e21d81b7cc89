//! The required lines of one attempt: how many are still unwritten, and whether one was lost.
//!
//! A plugin's line passes through `tracing`, which carries no attempt. So a thread-local mark names the attempt while
//! its line is on its way to the queue.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use tokio::time::{Instant, timeout_at};

/// Maximum bytes of required lines. They have room of their own, so a plugin that floods the log cannot take it. An
/// attempt may log at most this much by its own limit (`log-bytes`), so an attempt that has the queue to itself
/// always finds room.
pub(super) const REQUIRED_BYTES_MAX: usize = 64 << 20;

/// Why a required line is not in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    #[error("standard error took them not in time: is somebody reading it?")]
    TooLate,
    #[error("standard error: {0}")]
    WriteFailed(Arc<str>),
    #[error("{} MiB of such lines wait to be written already", REQUIRED_BYTES_MAX >> 20)]
    QueueFull,
}

/// State shared by an attempt, which waits for its lines, and by each of its lines in the queue.
#[derive(Debug, Default)]
pub struct RequiredLines {
    pending: AtomicUsize,
    fault: OnceLock<LogFault>,
    attempt: AtomicWaker,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<RequiredLines>>> = const { RefCell::new(None) };
}

/// A guard. Until it is dropped, lines logged by this thread belong to an attempt.
pub struct Mark;

impl Drop for Mark {
    fn drop(&mut self) {
        CURRENT.take();
    }
}

/// Returns the attempt that this thread is logging for, if its lines are required.
pub(super) fn current() -> Option<Arc<RequiredLines>> {
    CURRENT.with_borrow(Clone::clone)
}

impl RequiredLines {
    /// Marks all lines that this thread logs from now on as required, until the guard is dropped.
    pub fn mark(self: &Arc<Self>) -> Mark {
        CURRENT.set(Some(Arc::clone(self)));
        Mark
    }

    /// Returns whether there is nothing to wait for.
    pub fn is_settled(&self) -> bool {
        self.state().is_some()
    }

    /// Waits until all lines so far have been handed to the system. Lines still in the queue at the deadline are not
    /// written any more, because the attempt will be retried and log again.
    pub async fn written(&self, deadline: Instant) -> Result<(), LogFault> {
        if let Some(state) = self.state() {
            return state;
        }
        let settled = poll_fn(|context| {
            self.attempt.register(context.waker());
            self.state().map_or(Poll::Pending, Poll::Ready)
        });
        if let Ok(state) = timeout_at(deadline, settled).await {
            return state;
        }
        // The last line may have been written just now. Then report it as written.
        self.state().unwrap_or_else(|| Err(self.fault.get_or_init(|| LogFault::TooLate).clone()))
    }

    fn state(&self) -> Option<Result<(), LogFault>> {
        match self.fault.get() {
            Some(fault) => Some(Err(fault.clone())),
            None => (self.pending.load(Ordering::Acquire) == 0).then_some(Ok(())),
        }
    }

    /// Returns how many lines are not written yet.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// Counts a line that entered the queue.
    pub(super) fn queued(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a line that left the queue, written or not.
    pub(super) fn left_the_queue(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.attempt.wake();
        }
    }

    /// Records that a line is lost, which fails the attempt. Returns whether this is the first loss.
    pub(super) fn lost(&self, fault: &LogFault) -> bool {
        let is_news = self.fault.set(fault.clone()).is_ok();
        self.attempt.wake();
        is_news
    }

    /// Returns whether nobody needs the lines any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.fault.get().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn an_attempt_waits_for_its_last_line() {
        let lines = Arc::new(RequiredLines::default());
        assert_eq!(lines.written(soon()).await, Ok(()), "it has none");
        lines.queued();
        lines.queued();
        assert!(!lines.is_settled());
        lines.left_the_queue();
        let (waiting, deadline) = (Arc::clone(&lines), soon());
        let waiting = tokio::spawn(async move { waiting.written(deadline).await });
        tokio::task::yield_now().await;
        lines.left_the_queue();
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_line_that_is_lost_or_late_is_not_reported_as_written() {
        let full = Arc::new(RequiredLines::default());
        full.queued();
        assert!(full.lost(&LogFault::QueueFull));
        assert!(!full.lost(&LogFault::TooLate), "the first reason stays");
        full.left_the_queue();
        assert_eq!(full.written(soon()).await, Err(LogFault::QueueFull));

        let late = Arc::new(RequiredLines::default());
        late.queued();
        assert_eq!(late.written(Instant::now()).await, Err(LogFault::TooLate));
        assert!(late.is_given_up(), "the queue need not write it any more");
    }

    #[test]
    fn a_mark_ends_with_its_line() {
        let lines = Arc::new(RequiredLines::default());
        let mark = lines.mark();
        assert!(current().is_some_and(|current| Arc::ptr_eq(&current, &lines)));
        drop(mark);
        assert!(current().is_none());
    }
}
