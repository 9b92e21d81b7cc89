//! The bounded queue of log lines. Pure logic: no thread, no clock and no file.

use std::ops::Range;
use std::sync::Arc;

use crate::log_writer::required::{LogFault, REQUIRED_BYTES_MAX, RequiredLines};

/// Maximum number of best-effort lines that wait or are being written; more are dropped and counted. This is a few
/// tenths of a second of a busy host's log. The host does not wait for a reader that is away for longer.
const LINES_MAX: usize = 16_384;
/// Maximum bytes of those lines.
const BYTES_MAX: usize = 4 << 20;
/// Maximum bytes of one write, so that progress is reported even while the rest waits.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// Capacity in bytes that a buffer keeps after a burst.
const CAPACITY_BYTES_KEPT: usize = 256 << 10;

/// Whole lines, each with its line feed, and how much room they take.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: QueuedLines,
    /// Lines and bytes that wait or that the writer is writing.
    load: Load,
}

#[derive(Debug, Default)]
struct QueuedLines {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    bytes: usize,
    /// `None` means best effort.
    required: Option<Arc<RequiredLines>>,
}

/// An amount of lines and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    lines: usize,
    bytes: usize,
    required_bytes: usize,
}

impl Load {
    fn add(&mut self, entry: &Entry) {
        if entry.required.is_some() {
            self.required_bytes += entry.bytes;
        } else {
            self.lines += 1;
            self.bytes += entry.bytes;
        }
    }
}

impl Queue {
    /// Queues a line if there is room. A line larger than all the room is accepted when it would be alone.
    pub(super) fn push(&mut self, line: &[u8], required: Option<Arc<RequiredLines>>) -> Result<(), LogFault> {
        let Load { lines, bytes, required_bytes } = self.load;
        let exceeds = |before: usize, max: usize| before > 0 && before.saturating_add(line.len()) > max;
        match &required {
            Some(lines) if exceeds(required_bytes, REQUIRED_BYTES_MAX) => {
                lines.lost(&LogFault::QueueFull);
                return Err(LogFault::QueueFull);
            }
            None if lines >= LINES_MAX || exceeds(bytes, BYTES_MAX) => return Err(LogFault::QueueFull),
            Some(lines) => lines.queued(),
            None => {}
        }
        self.put(line, required);
        Ok(())
    }

    /// Queues one of the writer's own lines regardless of the bounds. There are few.
    pub(super) fn push_own(&mut self, line: &[u8]) {
        self.put(line, None);
    }

    fn put(&mut self, line: &[u8], required: Option<Arc<RequiredLines>>) {
        let entry = Entry { bytes: line.len(), required };
        self.load.add(&entry);
        self.waiting.bytes.extend_from_slice(line);
        self.waiting.entries.push(entry);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.entries.is_empty()
    }

    /// Returns whether the waiting lines fill a write.
    pub(super) fn fills_a_write(&self) -> bool {
        self.waiting.bytes.len() >= WRITE_BYTES_MAX
    }

    /// Moves all waiting lines into `batch`, whose previous lines must all be done.
    pub(super) fn take(&mut self, batch: &mut Batch) {
        let lines = &mut batch.lines;
        lines.bytes.clear();
        lines.entries.clear();
        // Release the capacity that a burst needed.
        lines.bytes.shrink_to(CAPACITY_BYTES_KEPT);
        lines.entries.shrink_to(LINES_MAX);
        std::mem::swap(lines, &mut self.waiting);
        (batch.next, batch.at, batch.begun) = (0, 0, 0);
    }

    /// Frees the room of lines that the writer is done with.
    pub(super) fn release(&mut self, load: Load) {
        self.load.lines -= load.lines;
        self.load.bytes -= load.bytes;
        self.load.required_bytes -= load.required_bytes;
    }

    /// Fails the required lines that wait, because the log cannot be written. Returns how many are lost.
    pub(super) fn fail(&mut self, fault: &LogFault) -> usize {
        fail(&self.waiting.entries, fault)
    }
}

/// Tells the attempts of these lines that they are lost. Best-effort lines stay and are written once that is possible
/// again.
fn fail(entries: &[Entry], fault: &LogFault) -> usize {
    let required = entries.iter().filter_map(|entry| entry.required.as_ref());
    required.filter(|lines| lines.lost(fault)).map(|lines| lines.pending()).sum()
}

/// The lines that the writer is writing.
#[derive(Debug, Default)]
pub(super) struct Batch {
    lines: QueuedLines,
    /// Index of the first line that is not done, its offset in the bytes, and how many of its bytes are written.
    next: usize,
    at: usize,
    begun: usize,
    done: Load,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.next == self.lines.entries.len()
    }

    /// Returns the bytes to write next: whole lines, or the rest of a partly written one. Skips lines that no attempt
    /// needs any more, but completes a line that is begun, so that the next line does not continue in its middle.
    pub(super) fn next_write(&mut self) -> &[u8] {
        while let Some(entry) = self.lines.entries.get(self.next).filter(|entry| self.begun == 0 && is_needless(entry))
        {
            self.at += entry.bytes;
            Self::leave(&mut self.done, entry);
            self.next += 1;
        }
        let mut bytes = 0;
        for (number, entry) in self.lines.entries[self.next..].iter().enumerate() {
            if number > 0 && (is_needless(entry) || bytes + entry.bytes > WRITE_BYTES_MAX) {
                break;
            }
            bytes += entry.bytes;
        }
        let range: Range<usize> = self.at + self.begun..self.at + bytes;
        &self.lines.bytes[range]
    }

    /// Records that `bytes` more bytes are written. A line counts once its last byte is written.
    pub(super) fn written(&mut self, bytes: usize) {
        self.begun += bytes;
        while let Some(entry) = self.lines.entries.get(self.next).filter(|entry| self.begun >= entry.bytes) {
            self.begun -= entry.bytes;
            self.at += entry.bytes;
            Self::leave(&mut self.done, entry);
            self.next += 1;
        }
    }

    /// Fails the required lines of the rest, as [`Queue::fail`] does.
    pub(super) fn fail(&mut self, fault: &LogFault) -> usize {
        fail(&self.lines.entries[self.next..], fault)
    }

    /// Returns the lines and bytes that were done since the last call.
    pub(super) fn take_done(&mut self) -> Load {
        std::mem::take(&mut self.done)
    }

    fn leave(done: &mut Load, entry: &Entry) {
        done.add(entry);
        if let Some(required) = &entry.required {
            required.left_the_queue();
        }
    }
}

fn is_needless(entry: &Entry) -> bool {
    entry.required.as_ref().is_some_and(|lines| lines.is_given_up())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn required() -> Arc<RequiredLines> {
        Arc::default()
    }

    fn taken(queue: &mut Queue) -> Batch {
        let mut batch = Batch::default();
        queue.take(&mut batch);
        batch
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_required_lines_have_room_of_their_own() {
        let mut queue = Queue::default();
        for _ in 0..LINES_MAX {
            assert_eq!(queue.push(b"x\n", None), Ok(()));
        }
        assert_eq!(queue.push(b"x\n", None), Err(LogFault::QueueFull));
        let lines = required();
        assert_eq!(queue.push(b"x\n", Some(Arc::clone(&lines))), Ok(()), "a flood takes no room of these");
        let mut batch = taken(&mut queue);
        assert_eq!(queue.push(b"x\n", None), Err(LogFault::QueueFull), "what the writer has in hand counts");
        let bytes = batch.next_write().len();
        assert_eq!(bytes, 2 * LINES_MAX + 2);
        batch.written(bytes);
        queue.release(batch.take_done());
        assert_eq!(queue.push(b"x\n", None), Ok(()));
        assert!(lines.is_settled());
    }

    #[test]
    fn bytes_are_bounded_too_and_a_line_larger_than_all_room_goes_alone() {
        let mut queue = Queue::default();
        assert_eq!(queue.push(&vec![b'x'; 2 * BYTES_MAX], None), Ok(()), "it will never find more room");
        assert_eq!(queue.push(b"x\n", None), Err(LogFault::QueueFull));
        let half = vec![b'x'; REQUIRED_BYTES_MAX / 2 + 1];
        let (first, second) = (required(), required());
        assert_eq!(queue.push(&half, Some(first)), Ok(()));
        assert_eq!(queue.push(&half, Some(Arc::clone(&second))), Err(LogFault::QueueFull));
        assert!(second.is_given_up(), "its attempt learns of it");
    }

    #[test]
    fn a_line_counts_when_its_last_byte_is_written_and_writes_have_a_bound() {
        let mut queue = Queue::default();
        let (first, second) = (required(), required());
        let long = vec![b'x'; WRITE_BYTES_MAX];
        queue.push(b"one\n", Some(Arc::clone(&first))).unwrap();
        queue.push(&long, Some(Arc::clone(&second))).unwrap();
        let mut batch = taken(&mut queue);
        assert_eq!(batch.next_write(), b"one\n");
        batch.written(3);
        assert!(!first.is_settled());
        assert_eq!(batch.next_write().len(), 1, "its rest, by itself");
        batch.written(1);
        assert!(first.is_settled() && !second.is_settled());
        assert_eq!(batch.next_write().len(), WRITE_BYTES_MAX);
        batch.written(WRITE_BYTES_MAX);
        assert!(second.is_settled() && batch.is_empty());
    }

    #[test]
    fn what_no_attempt_needs_any_more_is_passed_over_unless_it_is_begun() {
        let mut queue = Queue::default();
        let (begun, waiting) = (required(), required());
        queue.push(b"begun\n", Some(Arc::clone(&begun))).unwrap();
        queue.push(b"waiting\n", Some(Arc::clone(&waiting))).unwrap();
        queue.push(b"other\n", None).unwrap();
        let mut batch = taken(&mut queue);
        batch.next_write();
        batch.written(2);
        assert_eq!(batch.fail(&LogFault::WriteFailed("full".into())), 2);
        assert!(begun.is_given_up() && waiting.is_given_up());
        assert_eq!(batch.next_write(), b"gun\n", "the line is completed");
        batch.written(4);
        assert_eq!(batch.next_write(), b"other\n");
        batch.written(6);
        queue.release(batch.take_done());
        assert_eq!(queue.load, Load::default());
    }

    #[derive(Clone, Debug)]
    enum QueueStep {
        Push { bytes: usize, is_required: bool },
        Write(usize),
        Fail,
        GiveUp(usize),
    }

    fn step() -> impl Strategy<Value = QueueStep> {
        prop_oneof![
            4 => (1_usize..40, any::<bool>()).prop_map(|(bytes, is_required)| QueueStep::Push { bytes, is_required }),
            3 => (1_usize..100).prop_map(QueueStep::Write),
            1 => Just(QueueStep::Fail),
            1 => any::<usize>().prop_map(QueueStep::GiveUp),
        ]
    }

    proptest! {
        #[test]
        fn whole_lines_come_out_in_order_and_none_is_reported_as_written_that_is_not(
            steps in proptest::collection::vec(step(), 0..200)
        ) {
            let (mut queue, mut batch, mut out) = (Queue::default(), Batch::default(), Vec::new());
            let mut pushed: Vec<(String, Option<Arc<RequiredLines>>)> = Vec::new();
            let write = |queue: &mut Queue, batch: &mut Batch, out: &mut Vec<u8>, bytes: usize| {
                if batch.is_empty() {
                    queue.take(batch);
                }
                let next = batch.next_write();
                let bytes = bytes.min(next.len());
                out.extend_from_slice(&next[..bytes]);
                batch.written(bytes);
                queue.release(batch.take_done());
            };
            for step in steps.into_iter().chain(std::iter::repeat_n(QueueStep::Write(usize::MAX), 300)) {
                match step {
                    QueueStep::Push { bytes, is_required } => {
                        let line = format!("{}{}\n", pushed.len(), "x".repeat(bytes));
                        let lines = is_required.then(required);
                        queue.push(line.as_bytes(), lines.clone()).unwrap();
                        pushed.push((line, lines));
                    }
                    QueueStep::Write(bytes) => write(&mut queue, &mut batch, &mut out, bytes),
                    QueueStep::Fail => {
                        let fault = LogFault::WriteFailed("full".into());
                        batch.fail(&fault);
                        queue.fail(&fault);
                    }
                    QueueStep::GiveUp(number) => {
                        if let Some((_, Some(lines))) = pushed.get(number % pushed.len().max(1)) && !lines.is_settled() {
                            lines.lost(&LogFault::TooLate);
                        }
                    }
                }
            }
            prop_assert!(batch.is_empty() && queue.is_empty());
            prop_assert_eq!(queue.load, Load::default());
            let out = String::from_utf8(out).unwrap();
            let there: HashSet<_> = out.split_inclusive('\n').collect();
            let in_order = pushed.iter().filter(|(line, _)| there.contains(&**line)).map(|(line, _)| &**line);
            prop_assert_eq!(in_order.collect::<String>(), &*out, "whole lines, once, in order");
            for (line, lines) in &pushed {
                let is_there = there.contains(&**line);
                prop_assert!(is_there || lines.as_ref().is_some_and(|lines| lines.is_given_up()), "{}", line);
            }
        }
    }
}
