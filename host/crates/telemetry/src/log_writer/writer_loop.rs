//! The loop of the writer's thread: writes batches, and reports in the log what happens to the log.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event::text::counted;
use tracing::{error, warn};

use crate::log_writer::WriterShared;
use crate::log_writer::queue::Batch;
use crate::log_writer::required::LogFault;
use crate::metrics::LogLoss;

/// Pause between two attempts to write after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Pause before retrying when standard error is not ready: another process that shares it may have made it
/// non-blocking.
const NOT_READY_PAUSE: Duration = Duration::from_millis(10);
/// Minimum time between two log messages about dropped lines.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// The writer's own messages about the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LogNotice {
    Failing(Arc<str>),
    Recovered(Duration),
    Dropped(u64),
}

/// The state of the writer's loop.
pub(super) struct WriterLoop<'s, Write, Tell> {
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
    pub(super) fn new(shared: &'s WriterShared, write: Write, tell: Tell) -> Self {
        let (batch, wrote_at, failing_since, told_at) = Default::default();
        Self { shared, write, tell, batch, wrote_at, failing_since, told_at, dropped_told: 0 }
    }

    pub(super) fn run(mut self) {
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
            let mut state = self.shared.state();
            state.queue.release(self.batch.take_done());
            state.is_writing = !self.batch.is_empty();
            drop(state);
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

pub(super) fn tell(news: &LogNotice) {
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
pub(super) fn write_to_standard_error(bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::write(io::stderr(), bytes)?)
}

#[cfg(not(unix))]
pub(super) fn write_to_standard_error(bytes: &[u8]) -> io::Result<usize> {
    io::Write::write(&mut io::stderr(), bytes)
}
