//! The desk is where records wait for the writer.
//!
//! Each thread that notes records writes them on a pad of its own, which nobody else touches but the writer, and seldom. Full
//! pads go into the tray. The writer takes what lies there, and several times a second what else is on the pads.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::chunk::Chunk;

/// Between two times that the pads are cleared, while records come.
const CLEAR_INTERVAL: Duration = Duration::from_millis(200);
/// How long the first record waits at least: seldom one comes alone.
const GATHER_TIME: Duration = Duration::from_millis(20);
/// Of records that wait to be written; what is beyond is left out.
pub(super) const WAITING_BYTES_MAX: usize = 32 << 20;
/// A pad is full then: some ten events' records. Much more would push others out of the processor's nearest cache.
const PAD_BYTES: usize = 6 << 10;
/// A chunk is full then. Packed, what loggers say fills a page of the file so.
pub(super) const CHUNK_BYTES: usize = 76 << 10;
/// Chunks that are written down at once, however soon. Few enough that their memory, which is used again and again, stays in
/// the processor's caches.
const CHUNKS_AT_ONCE: usize = 4;
/// Chunks that were written and whose memory is kept for the next records.
const SPARE_MAX: usize = 2 * CHUNKS_AT_ONCE;

/// Where records are laid down.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Of all threads that have noted something. Who holds a pad may lock the tray, and not the other way round.
    pads: Mutex<Vec<Arc<Mutex<Chunk>>>>,
    tray: Mutex<Tray>,
    /// The writer will look at the pads before it sleeps for long.
    is_awake: AtomicBool,
    /// The writer is awake, or there is enough to be written at once, or the desk is closed.
    changed: Condvar,
}

// What all threads read for each record is in no line of the caches in which this changes.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Tray {
    /// All but the last are full.
    chunks: Vec<Chunk>,
    bytes: usize,
    spare: Vec<Chunk>,
    left_out: u64,
    /// The writer is to end.
    closed: bool,
    /// It has taken what it writes last.
    ended: bool,
}

/// What is to be written at once.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) chunks: Vec<Chunk>,
    /// Records that there was no room for.
    pub(super) left_out: u64,
    pub(super) is_last: bool,
}

impl Tray {
    /// Takes what is on a pad, and leaves it empty. Whether there is enough to be written at once.
    fn take(&mut self, pad: &mut Chunk) -> bool {
        let bytes = pad.records.len();
        if self.ended {
            // Nobody would write it.
        } else if self.bytes + bytes > WAITING_BYTES_MAX {
            self.left_out += pad.count;
        } else {
            self.bytes += bytes;
            match self.chunks.last_mut() {
                Some(chunk) if chunk.has_room(pad) => chunk.append(pad),
                _ => {
                    let mut chunk = self.spare.pop().unwrap_or_else(|| Chunk::with_room(CHUNK_BYTES));
                    chunk.append(pad);
                    self.chunks.push(chunk);
                }
            }
        }
        pad.clear();
        self.are_enough()
    }

    /// So many are full.
    fn are_enough(&self) -> bool {
        // One that was just begun would be a small row by itself.
        let is_full = |chunk: &Chunk| chunk.records.len() + PAD_BYTES > CHUNK_BYTES;
        self.chunks.len() + usize::from(self.chunks.last().is_some_and(is_full)) > CHUNKS_AT_ONCE
    }
}

thread_local! {
    /// This thread's, at the desk where it noted something last.
    static PAD: RefCell<(Weak<Desk>, Arc<Mutex<Chunk>>)> = RefCell::default();
}

impl Desk {
    /// Lets a record be written on the pad of this thread.
    pub(super) fn lay(self: &Arc<Self>, write: impl FnOnce(&mut Chunk)) {
        PAD.with_borrow_mut(|(desk, pad)| {
            if desk.as_ptr() != Arc::as_ptr(self) {
                (*desk, *pad) = (Arc::downgrade(self), Arc::default());
                locked(&self.pads).push(Arc::clone(pad));
            }
            let mut pad = locked(pad);
            write(&mut pad);
            let is_enough = pad.records.len() >= PAD_BYTES && locked(&self.tray).take(&mut pad);
            drop(pad);
            // If the writer has looked at the pad before, this is seen here: it locked that later than it said so.
            if is_enough || !self.is_awake.load(Ordering::Relaxed) {
                self.wake();
            }
        });
    }

    // What is seldom done has a place of its own.
    #[cold]
    fn wake(&self) {
        let tray = locked(&self.tray);
        self.is_awake.store(true, Ordering::Relaxed);
        drop(tray);
        self.changed.notify_one();
    }

    /// What is on the pads goes into the tray.
    fn clear_pads(&self) {
        locked(&self.pads).retain(|pad| {
            let mut chunk = locked(pad);
            if chunk.count > 0 {
                locked(&self.tray).take(&mut chunk);
            }
            // Its thread has ended otherwise, or has gone to another desk.
            Arc::strong_count(pad) > 1
        });
    }

    /// Waits for what has come within a moment, or is as much as is written at once. Nothing, if nothing comes for so long.
    pub(super) fn collect(&self, cleared_at: &mut Instant, sleep: Duration) -> Taken {
        let wait = |time, goes_on: &dyn Fn(&Tray) -> bool| {
            drop(self.changed.wait_timeout_while(locked(&self.tray), time, |tray| goes_on(tray)));
        };
        let is_empty = |tray: &Tray| tray.chunks.is_empty() && !tray.closed;
        if is_empty(&locked(&self.tray)) {
            self.is_awake.store(false, Ordering::Relaxed);
            self.clear_pads();
            // A host that has nothing to do sleeps.
            wait(sleep, &|tray| is_empty(tray) && !self.is_awake.load(Ordering::Relaxed));
            self.is_awake.store(true, Ordering::Relaxed);
        }
        let left = CLEAR_INTERVAL.saturating_sub(cleared_at.elapsed());
        wait(left.max(GATHER_TIME), &|tray| !tray.closed && !tray.are_enough());
        // What was noted before that is on the pads now.
        let is_last = locked(&self.tray).closed;
        if is_last || cleared_at.elapsed() >= CLEAR_INTERVAL {
            self.clear_pads();
            *cleared_at = Instant::now();
        }
        let mut tray = locked(&self.tray);
        tray.ended = is_last;
        tray.bytes = 0;
        Taken { chunks: std::mem::take(&mut tray.chunks), left_out: std::mem::take(&mut tray.left_out), is_last }
    }

    /// The writer takes what there is, and ends.
    pub(super) fn close(&self) {
        locked(&self.tray).closed = true;
        self.changed.notify_one();
    }

    /// Their memory is used again.
    pub(super) fn give_back(&self, mut chunks: Vec<Chunk>) {
        chunks.truncate(SPARE_MAX);
        chunks.iter_mut().for_each(Chunk::clear);
        let before = std::mem::replace(&mut locked(&self.tray).spare, chunks);
        drop(before);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Lent, What};

    fn pad(id: &str) -> Chunk {
        let mut pad = Chunk::default();
        pad.write(&Lent { at: 1, id, source: "s", event_type: "t", what: What::Duplicate }, None);
        pad
    }

    #[test]
    fn the_pad_of_a_thread_that_has_ended_is_taken_and_goes() {
        let desk = Arc::new(Desk::default());
        let noting = Arc::clone(&desk);
        std::thread::spawn(move || noting.lay(|own| *own = pad("1"))).join().unwrap();
        desk.lay(|own| *own = pad("2"));
        desk.close();
        let taken = desk.collect(&mut Instant::now(), CLEAR_INTERVAL);
        assert!(taken.is_last);
        assert_eq!(taken.chunks.iter().map(|chunk| chunk.count).sum::<u64>(), 2);
        assert_eq!(locked(&desk.pads).len(), 1);
        desk.lay(|own| *own = pad("3"));
        assert!(desk.collect(&mut Instant::now(), CLEAR_INTERVAL).chunks.is_empty(), "nobody would write it");
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_left_out_is_counted() {
        let (pad, mut tray) = (pad(&"x".repeat(CHUNK_BYTES)), Tray::default());
        let fit = WAITING_BYTES_MAX / pad.records.len();
        for _ in 0..fit + 3 {
            tray.take(&mut pad.clone());
        }
        assert_eq!((tray.chunks.iter().map(|chunk| chunk.count).sum::<u64>(), tray.left_out), (fit as u64, 3));
        assert!(tray.bytes <= WAITING_BYTES_MAX);
    }

    #[test]
    fn the_writer_is_called_once_there_is_enough() {
        // Each has a chunk of its own, and fills it, or half of it.
        for (bytes, enough) in [(CHUNK_BYTES - PAD_BYTES, CHUNKS_AT_ONCE), (CHUNK_BYTES / 2, CHUNKS_AT_ONCE + 1)] {
            let (pad, mut tray) = (pad(&"x".repeat(bytes)), Tray::default());
            for number in 1..enough + 2 {
                assert_eq!(tray.take(&mut pad.clone()), number >= enough, "{number} of {bytes} bytes");
            }
        }
    }
}
