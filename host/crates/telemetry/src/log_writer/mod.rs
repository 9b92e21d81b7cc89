//! Writes log lines to standard error on a dedicated thread, behind a bounded queue.
//!
//! A stalled reader of standard error or a full disk stops this thread and nothing else. Lines that do not fit into
//! the queue are dropped and counted; the log reports the count once there is room. An attempt whose lines are its
//! work waits for them ([`RequiredLines`]). One write serves all waiting attempts.

mod queue;
mod required;
mod status;

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event::text::counted;
use tracing::{error, warn};

use crate::log_writer::queue::{Batch, Queue};
pub use crate::log_writer::required::{LogFault, RequiredLines};
pub use crate::log_writer::status::LogStatus;
use crate::metrics::LogLoss;

/// Lines that arrive faster than this are collected before they are written. A lone line is written at once.
const FLOOD_INTERVAL: Duration = Duration::from_millis(1);
/// How long the writer collects lines. An attempt that needs its line waits this long.
const COLLECTING_TIME: Duration = Duration::from_micros(500);
/// Pause between two attempts to write after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Pause before retrying when standard error is not ready: another process that shares it may have made it
/// non-blocking.
const NOT_READY_PAUSE: Duration = Duration::from_millis(10);
/// Minimum time between two log messages about dropped lines.
const TELL_INTERVAL: Duration = Duration::from_secs(1);
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
}

#[derive(Debug, Default)]
struct WriterState {
    queue: Queue,
    /// Whether the writer sleeps and must be woken.
    sleeps: bool,
    is_closing: bool,
    has_ended: bool,
}

/// The writer's own messages about the log.
#[derive(Debug, PartialEq, Eq)]
enum LogNotice {
    Failing(Arc<str>),
    Recovered(Duration),
    Dropped(u64),
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
        }));
        let shared = Arc::clone(&writer.0);
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
        let mut state = self.0.state();
        let pushed = if IS_WRITER.get() {
            state.queue.push_own(line);
            Ok(())
        } else {
            state.queue.push(line, required)
        };
        let sleeps = std::mem::take(&mut state.sleeps);
        drop(state);
        if sleeps {
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

    /// Waits for lines, at most `time_max`, and moves them into `batch`. Returns `false` if there are none and none
    /// will come.
    fn take(&self, batch: &mut Batch, wrote_at: Option<Instant>, time_max: Option<Duration>) -> bool {
        let mut state = self.state();
        let has_nothing = |state: &mut WriterState| {
            state.sleeps = state.queue.is_empty() && !state.is_closing;
            state.sleeps
        };
        state = match time_max {
            None => self.work.wait_while(state, has_nothing).unwrap_or_else(PoisonError::into_inner),
            Some(time) => {
                self.work.wait_timeout_while(state, time, has_nothing).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.sleeps = false;
        if state.queue.is_empty() {
            return !state.is_closing;
        }
        let is_flood = wrote_at.is_some_and(|at| at.elapsed() < FLOOD_INTERVAL);
        if is_flood && !state.queue.fills_a_write() && !state.is_closing {
            // During a flood, writing and waking up for each line would cost more than the line.
            drop(state);
            std::thread::sleep(COLLECTING_TIME);
            state = self.state();
        }
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

/// Signals on drop that the thread has ended, even if it panicked.
struct EndGuard<'s>(&'s WriterShared);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        self.0.state().has_ended = true;
        self.0.ended.notify_all();
    }
}

/// The state of the writer's loop.
struct WriterLoop<'s, Write, Tell> {
    shared: &'s WriterShared,
    write: Write,
    tell: Tell,
    batch: Batch,
    wrote_at: Option<Instant>,
    failing_since: Option<Instant>,
    told_at: Option<Instant>,
    /// How many dropped lines the log has reported so far.
    dropped_told: u64,
}

impl<'s, Write, Tell> WriterLoop<'s, Write, Tell>
where
    Write: FnMut(&[u8]) -> io::Result<usize>,
    Tell: FnMut(&LogNotice),
{
    fn new(shared: &'s WriterShared, write: Write, tell: Tell) -> Self {
        let (batch, wrote_at, failing_since, told_at) = Default::default();
        Self { shared, write, tell, batch, wrote_at, failing_since, told_at, dropped_told: 0 }
    }

    fn run(mut self) {
        loop {
            if self.batch.is_empty() && !self.take() {
                // The last message before the thread ends.
                if !self.tell_of_dropped(Duration::ZERO) {
                    return;
                }
                continue;
            }
            if !self.write_some() && !self.shared.pause(FAILED_PAUSE) {
                return;
            }
            self.shared.state().queue.release(self.batch.take_done());
            self.tell_of_dropped(TELL_INTERVAL);
        }
    }

    fn take(&mut self) -> bool {
        let has_to_tell = self.failing_since.is_some() || self.dropped_told < self.dropped();
        let time_max = has_to_tell.then_some(TELL_INTERVAL);
        let goes_on = self.shared.take(&mut self.batch, self.wrote_at, time_max);
        if goes_on && self.batch.is_empty() && self.failing_since.is_some() {
            // No line is left to test the log with, so assume that it works. The next line will tell.
            self.works();
        }
        goes_on
    }

    fn dropped(&self) -> u64 {
        self.shared.status.lines_lost(LogLoss::QueueFull)
    }

    fn works(&mut self) {
        self.shared.status.works();
        if let Some(since) = self.failing_since.take() {
            (self.tell)(&LogNotice::Recovered(since.elapsed()));
        }
    }

    /// Writes once. Returns `false` if the write failed and should be retried after a pause.
    fn write_some(&mut self) -> bool {
        let status = &self.shared.status;
        let bytes = self.batch.next_write();
        if bytes.is_empty() {
            return true;
        }
        status.begins();
        let written = loop {
            match (self.write)(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Treated like a write that is still in progress.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(NOT_READY_PAUSE),
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                written => break written,
            }
        };
        match written {
            Ok(written) => {
                self.batch.written(written);
                self.wrote_at = Some(Instant::now());
                self.works();
                true
            }
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    /// Gives up the required lines, so that their attempts need not wait. All other lines stay for the next try.
    fn fail(&mut self, error: &io::Error) {
        let error: Arc<str> = error.to_string().into();
        self.shared.status.fails(&error);
        let fault = LogFault::WriteFailed(Arc::clone(&error));
        let lost = self.batch.fail(&fault) + self.shared.state().queue.fail(&fault);
        self.shared.status.lost(LogLoss::WriteFailed, lost);
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            // This message also waits in the queue, so there is a line to test the log with.
            (self.tell)(&LogNotice::Failing(error));
        }
    }

    /// Reports dropped lines once the log works, at most once per `interval`. Returns whether there was something to
    /// report.
    fn tell_of_dropped(&mut self, interval: Duration) -> bool {
        let dropped = self.dropped();
        let is_time = self.told_at.is_none_or(|at| at.elapsed() >= interval);
        let is_news = dropped > self.dropped_told && self.failing_since.is_none() && is_time;
        if is_news {
            (self.tell)(&LogNotice::Dropped(dropped - self.dropped_told));
            (self.dropped_told, self.told_at) = (dropped, Some(Instant::now()));
        }
        is_news
    }
}

fn tell(news: &LogNotice) {
    match news {
        LogNotice::Failing(error) => error!(
            "the log cannot be written: standard error: {error}; plugins that need it are not called until it can, and their \
             events wait"
        ),
        LogNotice::Recovered(after) => warn!("the log can be written again after {:.1} s", after.as_secs_f64()),
        LogNotice::Dropped(lines) => warn!(
            lines,
            "log lines are missing here: {} found no room, because standard error was not read in time",
            counted(usize::try_from(*lines).unwrap_or(usize::MAX), "line")
        ),
    }
}

/// Bypasses the handle of the standard library: while that waits for a reader, every other user of it waits as well.
#[cfg(unix)]
fn write_to_standard_error(bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::write(io::stderr(), bytes)?)
}

#[cfg(not(unix))]
fn write_to_standard_error(bytes: &[u8]) -> io::Result<usize> {
    io::Write::write(&mut io::stderr(), bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A writer whose writes end as the test decides, and the messages it reports.
    struct Rig {
        writer: LogWriter,
        answers: mpsc::Sender<io::Result<()>>,
        written: mpsc::Receiver<String>,
        news: mpsc::Receiver<LogNotice>,
        thread: std::thread::JoinHandle<()>,
    }

    const SOON: Duration = Duration::from_secs(20);

    fn rig() -> Rig {
        let shared = WriterShared {
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            status: LogStatus::default(),
        };
        let shared = Arc::new(shared);
        let (answers, answered) = mpsc::channel::<io::Result<()>>();
        let (writes, written) = mpsc::channel();
        let (tell, news) = mpsc::channel();
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let _ended = EndGuard(&own);
            let write = |bytes: &[u8]| {
                writes.send(String::from_utf8_lossy(bytes).into_owned()).unwrap();
                // Once the test has dropped its sender, every write succeeds.
                answered.recv().unwrap_or(Ok(())).map(|()| bytes.len())
            };
            let tell = |said: &LogNotice| {
                let said = match said {
                    LogNotice::Failing(error) => LogNotice::Failing(Arc::clone(error)),
                    LogNotice::Recovered(_) => LogNotice::Recovered(Duration::ZERO),
                    LogNotice::Dropped(lines) => LogNotice::Dropped(*lines),
                };
                tell.send(said).unwrap();
            };
            WriterLoop::new(&own, write, tell).run();
        });
        Rig { writer: LogWriter(shared), answers, written, news, thread }
    }

    fn next<T>(channel: &mpsc::Receiver<T>) -> T {
        channel.recv_timeout(SOON).expect("it comes")
    }

    #[test]
    fn a_reader_that_does_not_read_keeps_nobody_waiting_and_what_was_dropped_is_told() {
        let rig = rig();
        rig.writer.push(b"first\n");
        assert_eq!(next(&rig.written), "first\n");
        // The writer now waits for its reader.
        let lines = Arc::<RequiredLines>::default();
        let mark = lines.mark();
        rig.writer.push(b"required\n");
        drop(mark);
        let mut pushed = 0;
        while rig.writer.0.status.lines_lost(LogLoss::QueueFull) < 3 {
            rig.writer.push(b"flood\n");
            pushed += 1;
        }
        assert!(!lines.is_settled());
        rig.writer.close(Duration::from_millis(1));
        assert!(!rig.thread.is_finished(), "the end did not wait for the reader either");
        drop(rig.answers);
        rig.thread.join().unwrap();
        assert!(lines.is_settled());
        let rest: String = rig.written.iter().collect();
        assert_eq!(rest.matches("flood\n").count(), pushed - 3);
        assert!(rest.starts_with("required\n"), "in their order");
        assert_eq!(rig.news.iter().collect::<Vec<_>>(), [LogNotice::Dropped(3)]);
    }

    #[test]
    fn what_cannot_be_written_fails_what_needs_it_and_the_rest_is_tried_again() {
        let rig = rig();
        let lines = Arc::<RequiredLines>::default();
        let mark = lines.mark();
        rig.writer.push(b"required\n");
        drop(mark);
        assert_eq!(next(&rig.written), "required\n");
        rig.writer.push(b"other\n");
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        rig.answers.send(Err(full())).unwrap();
        assert_eq!(next(&rig.news), LogNotice::Failing(full().to_string().into()));
        assert!(rig.writer.0.status.is_blocked());
        assert_eq!(lines.pending(), 1);
        assert!(lines.is_settled(), "its attempt need not wait");
        assert_eq!(rig.writer.0.status.lines_lost(LogLoss::WriteFailed), 1);
        // Only the other line is left to retry.
        for answer in [Err(full()), Err(io::ErrorKind::Interrupted.into()), Ok(())] {
            assert_eq!(next(&rig.written), "other\n");
            rig.answers.send(answer).unwrap();
        }
        assert_eq!(next(&rig.news), LogNotice::Recovered(Duration::ZERO), "told once, however often it was tried");
        assert!(!rig.writer.0.status.is_blocked());
        assert_eq!(rig.writer.0.status.failed_writes(), 2);
        rig.writer.close(SOON);
        rig.thread.join().unwrap();
    }

    #[test]
    fn many_lines_are_written_at_once_and_the_last_one_before_the_end() {
        let rig = rig();
        rig.writer.push(b"0\n");
        next(&rig.written);
        for number in 1..1000 {
            rig.writer.push(format!("{number}\n").as_bytes());
        }
        rig.answers.send(Ok(())).unwrap();
        drop(rig.answers);
        rig.writer.close(SOON);
        rig.thread.join().unwrap();
        let writes: Vec<String> = rig.written.iter().collect();
        assert_eq!(writes.len(), 1, "all that waited");
        assert!(writes[0].ends_with("\n999\n"));
        assert!(rig.news.iter().next().is_none());
    }
}
