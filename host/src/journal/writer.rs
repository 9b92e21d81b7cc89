//! The writer takes records off the hands of delivery and puts them into the file, on a thread of its own.
//!
//! Who notes a record encodes it, into memory that its thread keeps for that, and lays down the bytes.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use tracing::warn;

use crate::delivery::clock::now;
use crate::journal::Bounds;
use crate::journal::chunk::{Chunk, Slip};
use crate::journal::record::{Record, Then};
use crate::journal::store::{Store, StoreError};
use crate::meters::Count;

/// Between two times that records are written down.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// How long the first of them waits at least: seldom one comes alone.
const GATHER_TIME: Duration = Duration::from_millis(20);
/// Of records that wait to be written; what is beyond is left out.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// A chunk is full then.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that are written down at once, however soon. Few enough that their memory, which is used again and again, stays in
/// the processor's caches.
const CHUNKS_AT_ONCE: usize = 4;
/// Chunks that were written and whose memory is kept for the next records.
const SPARE_MAX: usize = 2 * CHUNKS_AT_ONCE;
/// Between two looks at what is too old, or to be given back.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Of one look; the next one is soon enough for the rest.
const LOOK_TIME_MAX: Duration = Duration::from_millis(500);
/// After the file could not be opened or written.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

/// The journal, for who has something to tell. Its copies are one journal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    /// `None`: it is switched off.
    desk: Option<Arc<Desk>>,
}

/// Where records are laid down.
#[derive(Debug, Default)]
struct Desk {
    tray: Mutex<Tray>,
    /// Something lies there that was empty, or enough to be written at once, or it is closed.
    changed: Condvar,
    written: Count,
    /// Left out, or lost with a file that does not work.
    dropped: Count,
    bounds: Mutex<Bounds>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Tray {
    /// All but the last are full.
    chunks: Vec<Chunk>,
    bytes: usize,
    spare: Vec<Chunk>,
    left_out: u64,
    closed: bool,
}

impl Tray {
    /// Whether the writer should know: it is the first that lies there, or there is enough.
    fn take(&mut self, slip: &Slip) -> bool {
        if self.closed {
            return false;
        }
        if self.bytes + slip.bytes() > WAITING_BYTES_MAX {
            self.left_out += 1;
            return false;
        }
        self.bytes += slip.bytes();
        match self.chunks.last_mut() {
            Some(chunk) if chunk.has_room(slip) => {
                chunk.push(slip);
                false
            }
            _ => {
                let mut chunk = self.spare.pop().unwrap_or_else(|| Chunk::with_room(CHUNK_BYTES));
                chunk.push(slip);
                self.chunks.push(chunk);
                self.chunks.len() == 1 || self.are_enough()
            }
        }
    }

    /// So many are full.
    fn are_enough(&self) -> bool {
        self.chunks.len() > CHUNKS_AT_ONCE
    }
}

thread_local! {
    static SLIP: RefCell<Slip> = RefCell::default();
}

impl Journal {
    /// One that forgets everything at once.
    pub(crate) fn off() -> Self {
        Self::default()
    }

    /// Writes to this file, within these bounds. Whatever is wrong with the file is told in the log, and stops
    /// nobody.
    pub(crate) fn start(file: PathBuf, bounds: Bounds) -> Self {
        let desk = Arc::new(Desk { bounds: Mutex::new(bounds), ..Desk::default() });
        let writer = Arc::clone(&desk);
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || write(&writer, &file));
        match thread {
            Ok(thread) => *desk.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread),
            Err(error) => {
                warn!("there is no journal: cannot start its thread: {error}");
                return Self::off();
            }
        }
        Self { desk: Some(desk) }
    }

    /// From now on; what is too much or too old by them goes with the next look.
    pub(crate) fn keep_within(&self, bounds: Bounds) {
        if let Some(desk) = &self.desk {
            *desk.bounds.lock().unwrap_or_else(PoisonError::into_inner) = bounds;
        }
    }

    /// Whether anybody would read what is noted.
    pub(crate) fn is_on(&self) -> bool {
        self.desk.is_some()
    }

    /// Takes note. The record is only made if there is a journal.
    pub(crate) fn note<'r, Routes: Serialize, Lines: Serialize>(
        &self,
        record: impl FnOnce() -> Record<&'r str, Routes, Lines>,
    ) {
        if let Some(desk) = &self.desk {
            desk.lay(|slip| slip.write(&record(), None));
        }
    }

    /// Takes note of two things that happened to one event, for less than both cost by themselves.
    pub(crate) fn note_both<'r, Routes: Serialize, Lines: Serialize>(
        &self,
        both: impl FnOnce() -> (Record<&'r str, Routes, Lines>, Then<&'r str, Routes, Lines>),
    ) {
        if let Some(desk) = &self.desk {
            desk.lay(|slip| {
                let (record, then) = both();
                slip.write(&record, Some(&then));
            });
        }
    }

    /// How many records were written since the start, and how many were not.
    pub(crate) fn written_and_dropped(&self) -> (u64, u64) {
        self.desk.as_ref().map_or((0, 0), |desk| (desk.written.get(), desk.dropped.get()))
    }

    /// Writes what there is, and ends.
    pub(crate) fn close(&self) {
        let Some(desk) = &self.desk else { return };
        desk.tray().closed = true;
        desk.changed.notify_all();
        let thread = desk.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic there has been told already.
        let _ = thread.map(JoinHandle::join);
    }
}

impl Desk {
    fn lay(&self, write: impl FnOnce(&mut Slip)) {
        let is_news = SLIP.with_borrow_mut(|slip| {
            // Before the lock, which all who work share.
            write(slip);
            self.tray().take(slip)
        });
        if is_news {
            self.changed.notify_one();
        }
    }

    fn tray(&self) -> MutexGuard<'_, Tray> {
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has come within a moment, or as much as is written at once, and whether it is the last. Nothing, if nothing comes for
    /// long.
    fn collect(&self, flushed_at: Instant) -> Tray {
        let wait = |tray, time, goes_on: fn(&mut Tray) -> bool| {
            let waited = self.changed.wait_timeout_while(tray, time, goes_on);
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        // A host that has nothing to do sleeps.
        let mut tray = wait(self.tray(), LOOK_INTERVAL, |tray| tray.chunks.is_empty() && !tray.closed);
        if !tray.chunks.is_empty() {
            let left = FLUSH_INTERVAL.saturating_sub(flushed_at.elapsed());
            tray = wait(tray, left.max(GATHER_TIME), |tray| !tray.closed && !tray.are_enough());
        }
        let Tray { chunks, bytes, left_out, closed, .. } = &mut *tray;
        Tray {
            chunks: std::mem::take(chunks),
            bytes: std::mem::take(bytes),
            left_out: std::mem::take(left_out),
            closed: *closed,
            spare: Vec::new(),
        }
    }

    /// Their memory is used again.
    fn give_back(&self, mut chunks: Vec<Chunk>) {
        chunks.truncate(SPARE_MAX);
        chunks.iter_mut().for_each(Chunk::clear);
        let before = std::mem::replace(&mut self.tray().spare, chunks);
        drop(before);
    }
}

/// The file, as long as it works.
struct File<'f> {
    path: &'f Path,
    store: Option<Store>,
    /// It is left alone until then.
    again_at: Instant,
    looked_at: Instant,
}

fn write(desk: &Desk, path: &Path) {
    let now = Instant::now();
    let mut file = File { path, store: None, again_at: now, looked_at: now };
    // The file is there from the start, for who asks.
    let mut tray = Tray::default();
    loop {
        let flushed_at = Instant::now();
        let Tray { chunks, left_out, closed, .. } = tray;
        if left_out > 0 {
            warn!(records = left_out, "the journal could not keep up: these are missing in it");
        }
        desk.dropped.add(left_out);
        let bounds = *desk.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = file.take(&chunks, &bounds);
        let count = if matches!(taken, Ok(true)) { &desk.written } else { &desk.dropped };
        count.add(chunks.iter().map(|chunk| chunk.count).sum());
        if let Err(error) = taken {
            warn!("the journal {} does not work, and what happens meanwhile is missing in it: {error}", path.display());
            file.store = None;
            file.again_at = Instant::now() + FAILED_PAUSE;
        }
        if closed {
            return;
        }
        desk.give_back(chunks);
        tray = desk.collect(flushed_at);
    }
}

impl File<'_> {
    /// Whether they are written.
    fn take(&mut self, chunks: &[Chunk], bounds: &Bounds) -> Result<bool, StoreError> {
        let store = match &mut self.store {
            Some(store) => store,
            None if Instant::now() < self.again_at => return Ok(false),
            none => none.insert(Store::open(self.path)?),
        };
        store.append(chunks, bounds)?;
        if self.looked_at.elapsed() >= LOOK_INTERVAL {
            let begun = Instant::now();
            while begun.elapsed() < LOOK_TIME_MAX && store.tidy(now(), bounds)? {}
            self.looked_at = Instant::now();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::What;
    use crate::journal::store::Reader;

    fn record(id: &str) -> Record<&str> {
        Record { at: 1, id, source: "s", event_type: "t", what: What::Duplicate }
    }

    #[test]
    fn what_is_noted_is_in_the_file_once_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.db");
        let journal = Journal::start(file.clone(), Bounds::default());
        for id in 0..10_000 {
            let id = id.to_string();
            journal.note(|| record(&id));
        }
        journal.close();
        journal.note(|| record("10000"));
        assert_eq!(journal.written_and_dropped(), (10_000, 0));
        let mut ids = Vec::new();
        Reader::open(&file).unwrap().since(0, 0, |record| ids.push(record.id.parse::<usize>().unwrap())).unwrap();
        assert_eq!(ids, (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_left_out_is_counted() {
        let (id, mut slip, mut tray) = ("x".repeat(CHUNK_BYTES), Slip::default(), Tray::default());
        slip.write(&record(&id), None);
        let fit = WAITING_BYTES_MAX / slip.bytes();
        for _ in 0..fit + 3 {
            tray.take(&slip);
        }
        assert_eq!((tray.chunks.iter().map(|chunk| chunk.count).sum::<u64>(), tray.left_out), (fit as u64, 3));
        assert!(tray.bytes <= WAITING_BYTES_MAX);
    }

    #[test]
    fn the_writer_is_called_for_the_first_and_once_there_is_enough() {
        let (id, mut slip, mut tray) = ("x".repeat(CHUNK_BYTES / 2), Slip::default(), Tray::default());
        slip.write(&record(&id), None);
        // Each has a chunk of its own.
        let calls: Vec<_> = (0..=CHUNKS_AT_ONCE + 1).map(|_| tray.take(&slip)).collect();
        let is_called = |number| number == 0 || number >= CHUNKS_AT_ONCE;
        assert_eq!(calls, (0..=CHUNKS_AT_ONCE + 1).map(is_called).collect::<Vec<_>>());
        let mut small = Slip::default();
        small.write(&record("1"), None);
        assert!(!tray.take(&small), "it is at work already");
    }

    #[test]
    fn a_journal_that_cannot_be_written_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let journal = Journal::start(folder.path().join("file/journal.db"), Bounds::default());
        let id = "x".repeat(CHUNK_BYTES);
        let records = WAITING_BYTES_MAX / CHUNK_BYTES + 1;
        for _ in 0..records {
            journal.note(|| record(&id));
        }
        journal.close();
        assert_eq!(journal.written_and_dropped(), (0, records as u64));
        Journal::off().note(|| -> Record<&str> { panic!("nobody reads it") });
    }
}
