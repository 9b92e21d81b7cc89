//! Writes log lines to standard error on a dedicated thread, behind a bounded queue.
//!
//! A stalled reader of standard error or a full disk stops this thread and nothing else. Lines that do not fit into
//! the queue are dropped and counted; the log reports the count once there is room.
//!
//! An attempt whose lines are its work needs them written before it ends ([`RequiredLines`]). It writes the queue itself
//! where that cannot block ([`direct`]), or waits for the thread, of which one write serves all waiting attempts.

mod direct;
mod queue;
mod required;
mod status;
#[cfg(test)]
mod tests;
mod writer_loop;

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::log_writer::queue::{Batch, Queue};
pub use crate::log_writer::required::{LogFault, RequiredLines};
pub use crate::log_writer::status::LogStatus;
use crate::log_writer::writer_loop::{WriterLoop, tell, write_to_standard_error};
use crate::metrics::LogLoss;

/// Lines that arrive faster than this are collected before they are written. A lone line is written at once.
const FLOOD_INTERVAL: Duration = Duration::from_millis(1);
/// How long the writer collects lines. An attempt that needs its line waits this long.
const COLLECTING_TIME: Duration = Duration::from_micros(500);
/// How long required lines stay in the queue at most if their attempt does not write them, because it is not over yet.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);
/// The thread watches the queue for this long after the last line. Then it sleeps until it is woken.
const WATCH_TIME: Duration = Duration::from_secs(1);
/// Time limit for writing the last lines at shutdown.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// A handle for queueing log lines. Clones share one queue.
#[derive(Clone, Debug)]
pub struct LogWriter(Arc<WriterShared>);

#[derive(Debug)]
struct WriterShared {
    state: Mutex<WriterState>,
    /// Wakes the writer.
    work: Condvar,
    /// Signals that the writer has ended.
    ended: Condvar,
    status: LogStatus,
    /// Writes without waiting, where that is possible.
    direct: Option<direct::Write>,
}

#[derive(Debug, Default)]
struct WriterState {
    queue: Queue,
    /// Somebody writes: the thread or an attempt. Nobody else may, or lines would change places.
    is_writing: bool,
    /// Lines that an attempt began to write, and left to the thread.
    left_over: Option<Batch>,
    /// The memory of a batch that is done.
    spare: Batch,
    thread: ThreadState,
    is_closing: bool,
    has_ended: bool,
}

/// What the writer's thread does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ThreadState {
    #[default]
    Works,
    /// Waits for work, and looks for some now and then.
    Watches,
    /// Waits until it is woken.
    Sleeps,
}

thread_local! {
    /// Set on the writer's thread. Its own lines always find room in the queue.
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

impl LogWriter {
    /// Starts the thread, which writes to standard error.
    pub fn start(status: LogStatus) -> io::Result<Self> {
        let writer = Self(Arc::new(WriterShared {
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            status,
            direct: direct::to_standard_error(),
        }));
        let shared = Arc::clone(&writer.0);
        shared.status.written_by(&shared);
        // Nobody joins this thread: it may be stuck in a write for ever. It ends on `close`, or with the process.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            IS_WRITER.set(true);
            let _ended = EndGuard(&shared);
            WriterLoop::new(&shared, write_to_standard_error, tell).run();
        })?;
        Ok(writer)
    }

    /// Queues a line, which includes its line feed. Never waits.
    pub fn push(&self, line: &[u8]) {
        let required = required::current();
        // An attempt writes its lines itself when it ends; the thread only looks after those that take long.
        let is_left_to_attempt = required.is_some() && self.0.direct.is_some();
        let mut state = self.0.state();
        let pushed = if IS_WRITER.get() {
            state.queue.push_own(line);
            Ok(())
        } else {
            state.queue.push(line, required)
        };
        let wakes = match state.thread {
            ThreadState::Works => false,
            ThreadState::Watches => !is_left_to_attempt,
            ThreadState::Sleeps => true,
        };
        if wakes {
            state.thread = ThreadState::Works;
        }
        drop(state);
        if wakes {
            self.0.work.notify_one();
        }
        if pushed.is_err() {
            self.0.status.lost(LogLoss::QueueFull, 1);
        }
    }

    /// Flushes the remaining lines, waiting at most `time`.
    pub fn close(&self, time: Duration) {
        let mut state = self.0.state();
        state.is_closing = true;
        self.0.work.notify_one();
        drop(self.0.ended.wait_timeout_while(state, time, |state| !state.has_ended));
    }
}

impl WriterShared {
    fn state(&self) -> MutexGuard<'_, WriterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the queue, unless somebody else does or the write would have to wait.
    fn write_now(&self) {
        let Some(write) = self.direct.filter(|_| !self.status.is_blocked()) else { return };
        let mut state = self.state();
        if state.is_writing || state.left_over.is_some() || state.queue.is_empty() {
            return;
        }
        state.is_writing = true;
        let mut batch = std::mem::take(&mut state.spare);
        state.queue.take(&mut batch);
        drop(state);
        self.status.begins();
        loop {
            let bytes = batch.next_write();
            if bytes.is_empty() {
                break;
            }
            match write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The thread will meet the same error, and knows what to do about it.
                Err(_) | Ok(0) => break,
                Ok(written) => batch.written(written),
            }
        }
        self.status.ends();
        let mut state = self.state();
        state.queue.release(batch.take_done());
        state.is_writing = false;
        if batch.is_empty() {
            state.spare = batch;
        } else {
            state.left_over = Some(batch);
        }
        let wakes = state.thread != ThreadState::Works && state.has_work();
        if wakes {
            state.thread = ThreadState::Works;
        }
        drop(state);
        if wakes {
            self.work.notify_one();
        }
    }

    /// Waits for lines, at most `time_max`, and moves them into `batch`. Returns `false` if there are none and none
    /// will come.
    fn take(&self, batch: &mut Batch, wrote_at: Option<Instant>, time_max: Option<Duration>) -> bool {
        let mut state = self.state();
        let watches = self.direct.is_some() && wrote_at.is_some_and(|at| at.elapsed() < WATCH_TIME);
        let time_max = if watches { Some(time_max.unwrap_or(WATCH_INTERVAL).min(WATCH_INTERVAL)) } else { time_max };
        let has_nothing = |state: &mut WriterState| {
            let waits = !state.has_work() && !state.is_closing;
            state.thread = match time_max {
                _ if !waits => ThreadState::Works,
                Some(_) => ThreadState::Watches,
                None => ThreadState::Sleeps,
            };
            waits
        };
        state = match time_max {
            None => self.work.wait_while(state, has_nothing).unwrap_or_else(PoisonError::into_inner),
            Some(time) => {
                self.work.wait_timeout_while(state, time, has_nothing).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.thread = ThreadState::Works;
        if let Some(left_over) = state.left_over.take() {
            state.is_writing = true;
            *batch = left_over;
            return true;
        }
        if !state.has_work() {
            return !state.is_closing;
        }
        let is_flood = wrote_at.is_some_and(|at| at.elapsed() < FLOOD_INTERVAL);
        if is_flood && !state.queue.fills_a_write() && !state.is_closing {
            // During a flood, writing and waking up for each line would cost more than the line.
            drop(state);
            std::thread::sleep(COLLECTING_TIME);
            state = self.state();
            if state.is_writing || state.left_over.is_some() || state.queue.is_empty() {
                // An attempt writes them, or has.
                return true;
            }
        }
        state.is_writing = true;
        state.queue.take(batch);
        true
    }

    /// Waits before the next attempt to write. Returns `false` if the host is shutting down and there is no time for
    /// one.
    fn pause(&self, time: Duration) -> bool {
        let state = self.state();
        let waited = self.work.wait_timeout_while(state, time, |state| !state.is_closing);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_closing
    }
}

impl WriterState {
    /// Whether there is something to write that nobody writes.
    fn has_work(&self) -> bool {
        !self.is_writing && (self.left_over.is_some() || !self.queue.is_empty())
    }
}

/// Signals on drop that the thread has ended, even if it panicked.
struct EndGuard<'s>(&'s WriterShared);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        self.0.state().has_ended = true;
        self.0.ended.notify_all();
    }
}
