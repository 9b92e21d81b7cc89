//! The required lines of one attempt: how many are still to be written, and whether one of them was lost.
//!
//! A plugin's line goes through `tracing`, which carries no attempt. So the attempt's mark stands on the thread while its
//! line is on the way to the queue.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use tokio::time::{Instant, timeout_at};

use crate::log_writer::queue::REQUIRED_BYTES_MAX;

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

/// Shared by the attempt, which waits for them, and by each of its lines in the queue.
#[derive(Debug, Default)]
pub struct RequiredLines {
    pending: AtomicUsize,
    fault: OnceLock<LogFault>,
    attempt: AtomicWaker,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<RequiredLines>>> = const { RefCell::new(None) };
}

/// Lines that this thread logs belong to an attempt for as long as this lives.
pub struct Mark;

impl Drop for Mark {
    fn drop(&mut self) {
        CURRENT.take();
    }
}

/// Whose lines this thread is logging, if they are required.
pub(super) fn current() -> Option<Arc<RequiredLines>> {
    CURRENT.with_borrow(Clone::clone)
}

impl RequiredLines {
    /// What this thread logs from now on is required.
    pub fn mark(self: &Arc<Self>) -> Mark {
        CURRENT.set(Some(Arc::clone(self)));
        Mark
    }

    /// Whether there is nothing to wait for.
    pub fn is_settled(&self) -> bool {
        self.state().is_some()
    }

    /// Waits until all lines so far have been handed to the system. Those that are still in the queue at the deadline are not
    /// written any more: the attempt will be made again, and log again.
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
        // The last one may be written just now, and is then reported as it is: written.
        self.state().unwrap_or_else(|| Err(self.fault.get_or_init(|| LogFault::TooLate).clone()))
    }

    fn state(&self) -> Option<Result<(), LogFault>> {
        match self.fault.get() {
            Some(fault) => Some(Err(fault.clone())),
            None => (self.pending.load(Ordering::Acquire) == 0).then_some(Ok(())),
        }
    }

    /// Lines of it that are not written yet.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// One more line is in the queue.
    pub(super) fn queued(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// One line less is in the queue, written or not.
    pub(super) fn left_the_queue(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.attempt.wake();
        }
    }

    /// A line is lost, and so the attempt with it. Whether that is news.
    pub(super) fn lost(&self, fault: &LogFault) -> bool {
        let is_news = self.fault.set(fault.clone()).is_ok();
        self.attempt.wake();
        is_news
    }

    /// Whether nobody needs its lines any more.
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
