//! The status of the log: whether it accepts lines now, and what it lost. The writer updates it; delivery and the
//! admin API read it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::log_writer::WriterShared;
use crate::metrics::{Count, LogLoss};

/// A write that takes longer than this counts as blocked: nobody reads standard error.
const BLOCKED_AFTER: Duration = Duration::from_millis(250);
/// Maximum number of attempts, over all plugins, that wait for their lines without holding a slot of their plugin.
const WAITING_MAX: usize = 64;
/// At most one in this many of the messages that a host may hold waits for the log.
const WAITING_SHARE: usize = 4;

/// A handle to the status. Clones share one status. The default is a log that always accepts lines.
#[derive(Clone, Debug)]
pub struct LogStatus(Arc<StatusInner>);

#[derive(Debug)]
struct StatusInner {
    lost: [Count; LogLoss::ALL.len()],
    failed_writes: Count,
    began: Instant,
    /// When the current write began, in milliseconds since `began`, at least 1. 0 means that none is in progress.
    writing_since: AtomicU64,
    /// Why the last write failed, until one succeeds.
    failing: Mutex<Option<Arc<str>>>,
    /// Mirrors `failing`, readable without its lock.
    is_failing: AtomicBool,
    waiting: Arc<Semaphore>,
    writer: OnceLock<Weak<WriterShared>>,
}

impl Default for LogStatus {
    fn default() -> Self {
        Self::new(0)
    }
}

impl LogStatus {
    /// Creates the status for a host that holds up to `prefetch` messages.
    pub fn new(prefetch: usize) -> Self {
        Self(Arc::new(StatusInner {
            lost: Default::default(),
            failed_writes: Count::default(),
            began: Instant::now(),
            writing_since: AtomicU64::new(0),
            failing: Mutex::default(),
            is_failing: AtomicBool::new(false),
            waiting: Arc::new(Semaphore::new(WAITING_MAX.min(prefetch / WAITING_SHARE))),
            writer: OnceLock::new(),
        }))
    }

    /// Returns whether a line would have to wait now.
    pub fn is_blocked(&self) -> bool {
        self.0.is_failing.load(Ordering::Relaxed) || self.blocked_for().is_some()
    }

    /// Returns why the log does not accept lines, if it does not.
    pub fn trouble(&self) -> Option<String> {
        let failing = self.0.failing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(error) = failing {
            return Some(format!("the log cannot be written: standard error: {error}"));
        }
        let seconds = self.blocked_for()?.as_secs_f64();
        Some(format!("the log takes no lines: nobody has read standard error for {seconds:.1} s"))
    }

    fn blocked_for(&self) -> Option<Duration> {
        let since = self.0.writing_since.load(Ordering::Relaxed);
        // Usually nothing is being written, and the clock need not be read.
        let blocked_for = (since > 0).then(|| Duration::from_millis(self.now().saturating_sub(since)))?;
        (blocked_for > BLOCKED_AFTER).then_some(blocked_for)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Takes a permit to wait for lines without a slot of the plugin, so that another attempt can use the slot.
    pub fn may_wait(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.waiting).try_acquire_owned().ok()
    }

    /// Has the queued lines written by this thread, if that need not wait. Otherwise the writer's thread does it.
    pub fn write_now(&self) {
        if let Some(writer) = self.0.writer.get().and_then(Weak::upgrade) {
            writer.write_now();
        }
    }

    pub(super) fn written_by(&self, writer: &Arc<WriterShared>) {
        // A status has one writer.
        let _ = self.0.writer.set(Arc::downgrade(writer));
    }

    pub fn lost(&self, why: LogLoss, lines: usize) {
        self.0.lost[why as usize].add(lines as u64);
    }

    pub fn lines_lost(&self, why: LogLoss) -> u64 {
        self.0.lost[why as usize].get()
    }

    pub fn failed_writes(&self) -> u64 {
        self.0.failed_writes.get()
    }

    /// Records that a write begins.
    pub(super) fn begins(&self) {
        self.0.writing_since.store(self.now(), Ordering::Relaxed);
    }

    /// Records that a write has ended, without a judgement on the log.
    pub(super) fn ends(&self) {
        self.0.writing_since.store(0, Ordering::Relaxed);
    }

    /// Records that the write has ended and something was written.
    pub(super) fn works(&self) {
        self.0.writing_since.store(0, Ordering::Relaxed);
        if self.0.is_failing.swap(false, Ordering::Relaxed) {
            *self.0.failing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Records that the write has ended and nothing was written.
    pub(super) fn fails(&self, error: &Arc<str>) {
        self.0.failed_writes.one_more();
        *self.0.failing.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(error));
        self.0.is_failing.store(true, Ordering::Relaxed);
        self.0.writing_since.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_failed_or_does_not_end_blocks_the_log() {
        let status = LogStatus::default();
        assert!(!status.is_blocked());
        status.begins();
        assert!(!status.is_blocked(), "it has just begun");
        let long_ago = Instant::now().checked_sub(2 * BLOCKED_AFTER).unwrap();
        let blocked = LogStatus(Arc::new(StatusInner { began: long_ago, ..standing() }));
        blocked.0.writing_since.store(1, Ordering::Relaxed);
        assert!(blocked.is_blocked());
        assert!(blocked.trouble().unwrap().contains("nobody has read standard error for 0.5 s"));
        blocked.works();
        assert!(!blocked.is_blocked());
        status.fails(&"No space left on device".into());
        assert!(status.is_blocked());
        assert!(status.trouble().unwrap().contains("No space left"), "{:?}", status.trouble());
        assert_eq!(status.failed_writes(), 1);
        status.works();
        assert_eq!((status.is_blocked(), status.trouble()), (false, None));
    }

    fn standing() -> StatusInner {
        Arc::into_inner(LogStatus::default().0).unwrap()
    }

    #[test]
    fn those_that_wait_hold_a_quarter_of_the_messages_at_most() {
        for (prefetch, waiting) in [(0, 0), (3, 0), (40, 10), (256, 64), (10_000, WAITING_MAX)] {
            let status = LogStatus::new(prefetch);
            let permits: Vec<_> = std::iter::from_fn(|| status.may_wait()).collect();
            assert_eq!(permits.len(), waiting);
        }
    }
}
