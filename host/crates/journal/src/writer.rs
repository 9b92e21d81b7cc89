//! The writer takes records off the hands of delivery and puts them into the file, on a thread of its own.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use config::JournalBounds;
use event::clock::now;
use telemetry::metrics::Count;
use tracing::warn;

use crate::chunk::Chunk;
use crate::desk::{Desk, Taken};
use crate::form::List;
use crate::record::{Line, Record, Routed, Then};
use crate::store::{Store, StoreError};

/// Between two looks at what is too old, or to be given back.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Of one look; the next one is soon enough for the rest.
const LOOK_TIME_MAX: Duration = Duration::from_millis(500);
/// Time limit for the last lines at the end: a disk that hangs must not keep the host from ending.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);
/// After the file could not be opened or written.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

/// The journal, for who has something to tell. Its copies are one journal.
#[derive(Clone, Debug)]
pub struct Journal {
    desk: Arc<Desk>,
    writer: Arc<Writer>,
}

/// What the writer is told, and tells.
#[derive(Debug)]
struct Writer {
    file: Option<PathBuf>,
    bounds: Mutex<JournalBounds>,
    is_on: AtomicBool,
    written: Count,
    /// Left out, or lost with a file that does not work.
    dropped: Count,
    /// Once it was switched on.
    thread: Mutex<Option<Running>>,
}

/// The thread that writes. It holds the other end of the channel, and says nothing by it.
#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    ended: Receiver<Infallible>,
}

impl Journal {
    /// One that would be in this file. Without a file it forgets everything at once.
    pub fn new(file: Option<PathBuf>) -> Self {
        let writer = Writer {
            file,
            bounds: Mutex::default(),
            is_on: AtomicBool::new(false),
            written: Count::default(),
            dropped: Count::default(),
            thread: Mutex::default(),
        };
        Self { desk: Arc::default(), writer: Arc::new(writer) }
    }

    /// Keeps so much from now on, or takes note of nothing more. What is too much or too old goes with the next look. Whatever
    /// is wrong with the file is told in the log, and stops nobody.
    pub fn keep(&self, bounds: Option<JournalBounds>) {
        if let Some(bounds) = bounds {
            *self.writer.bounds.lock().unwrap_or_else(PoisonError::into_inner) = bounds;
        }
        let is_on = bounds.is_some() && self.has_thread();
        self.writer.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Starts it, if need be.
    fn has_thread(&self) -> bool {
        let Some(file) = self.writer.file.clone() else { return false };
        let mut thread = self.writer.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let (desk, writer) = (Arc::clone(&self.desk), Arc::clone(&self.writer));
            let (ends, ended) = mpsc::channel();
            let builder = std::thread::Builder::new().name("journal".to_owned());
            let write = move || {
                let _ends = ends;
                writer.write(&desk, &file);
            };
            match builder.spawn(write) {
                Ok(started) => *thread = Some(Running { thread: started, ended }),
                Err(error) => warn!("there is no journal: cannot start its thread: {error}"),
            }
        }
        thread.is_some()
    }

    /// Whether anybody would read what is noted.
    pub fn is_on(&self) -> bool {
        self.writer.is_on.load(Ordering::Relaxed)
    }

    /// Takes note. The record is only made if there is a journal.
    pub fn note<'r, Routes: List<Routed<&'r str>>, Lines: List<Line<&'r str>>>(
        &self,
        record: impl FnOnce() -> Record<&'r str, Routes, Lines>,
    ) {
        if self.is_on() {
            self.desk.lay(|pad| pad.write(&record(), None));
        }
    }

    /// Takes note of two things that happened to one event, for less than both cost by themselves.
    pub(crate) fn note_both<'r, Routes: List<Routed<&'r str>>, Lines: List<Line<&'r str>>>(
        &self,
        both: impl FnOnce() -> (Record<&'r str, Routes, Lines>, Then<&'r str, Routes, Lines>),
    ) {
        if self.is_on() {
            self.desk.lay(|pad| {
                let (record, then) = both();
                pad.write(&record, Some(&then));
            });
        }
    }

    /// How many records were written since the start, and how many were not.
    pub fn written_and_dropped(&self) -> (u64, u64) {
        (self.writer.written.get(), self.writer.dropped.get())
    }

    /// Writes what there is, and ends.
    pub fn close(&self) {
        self.close_within(CLOSE_TIME_MAX);
    }

    fn close_within(&self, time: Duration) {
        self.desk.close();
        let running = self.writer.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { thread, ended }) = running else { return };
        match ended.recv_timeout(time) {
            // A panic there has been told already.
            Err(RecvTimeoutError::Disconnected) => drop(thread.join()),
            Err(RecvTimeoutError::Timeout) => warn!(
                "the journal's file does not take the last records within {} s: they are missing in it",
                time.as_secs_f64()
            ),
            Ok(never) => match never {},
        }
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

impl Writer {
    fn write(&self, desk: &Desk, path: &Path) {
        let now = Instant::now();
        let mut file = File { path, store: None, again_at: now, looked_at: now };
        // The file is there from the start, for who asks.
        let (mut taken, mut cleared_at) = (Taken::default(), now);
        loop {
            let Taken { chunks, left_out, is_last } = taken;
            if left_out > 0 {
                warn!(records = left_out, "the journal could not keep up: these are missing in it");
            }
            self.dropped.add(left_out);
            let bounds = *self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
            let written = file.take(&chunks, &bounds);
            let count = if matches!(written, Ok(true)) { &self.written } else { &self.dropped };
            count.add(chunks.iter().map(|chunk| chunk.count).sum());
            if let Err(error) = written {
                let path = path.display();
                warn!("the journal {path} does not work, and what happens meanwhile is missing in it: {error}");
                file.store = None;
                file.again_at = Instant::now() + FAILED_PAUSE;
            }
            if is_last {
                return;
            }
            desk.give_back(chunks);
            taken = desk.collect(&mut cleared_at, LOOK_INTERVAL);
        }
    }
}

impl File<'_> {
    /// Whether they are written.
    fn take(&mut self, chunks: &[Chunk], bounds: &JournalBounds) -> Result<bool, StoreError> {
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
    use crate::desk::{CHUNK_BYTES, WAITING_BYTES_MAX};
    use crate::record::{Lent, What};
    use crate::store::Reader;

    fn record(id: &str) -> Lent<'_> {
        Record { at: 1, id, source: "s", event_type: "t", what: What::Duplicate }
    }

    fn started(file: PathBuf) -> Journal {
        let journal = Journal::new(Some(file));
        journal.keep(Some(JournalBounds::default()));
        journal
    }

    fn ids(file: &Path) -> Vec<usize> {
        let mut ids = Vec::new();
        Reader::open(file).unwrap().since(0, 0, |record| ids.push(record.id.parse().unwrap())).unwrap();
        ids
    }

    #[test]
    fn what_is_noted_is_in_the_file_once_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.db");
        let journal = started(file.clone());
        for id in 0..10_000 {
            let id = id.to_string();
            journal.note(|| record(&id));
        }
        journal.close();
        journal.note(|| record("10000"));
        assert_eq!(journal.written_and_dropped(), (10_000, 0));
        assert_eq!(ids(&file), (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn what_many_threads_note_at_many_journals_is_in_the_file_of_each() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["0.db", "1.db"].map(|file| folder.path().join(file));
        let journals = files.clone().map(started);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let journals = &journals;
                scope.spawn(move || {
                    for id in (0..1000).map(|number| thread * 1000 + number) {
                        let name = id.to_string();
                        journals[id / 7 % 2].note(|| record(&name));
                    }
                });
            }
        });
        for (number, (journal, file)) in journals.iter().zip(&files).enumerate() {
            journal.close();
            let mut ids = ids(file);
            ids.sort_unstable();
            assert_eq!(ids, (0..4000).filter(|id| id / 7 % 2 == number).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_that_is_noted_alone_is_written_soon() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.db");
        let journal = started(file.clone());
        // Again and again, for the writer sleeps in between.
        for id in 0..5 {
            let name = id.to_string();
            journal.note(|| record(&name));
            let noted_at = Instant::now();
            while journal.written_and_dropped().0 == id {
                assert!(noted_at.elapsed() < LOOK_INTERVAL / 2, "number {id} lies there");
                std::thread::yield_now();
            }
        }
        assert_eq!(ids(&file), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_journal_that_cannot_be_written_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let journal = started(folder.path().join("file/journal.db"));
        let id = "x".repeat(CHUNK_BYTES);
        let records = WAITING_BYTES_MAX / CHUNK_BYTES + 1;
        for _ in 0..records {
            journal.note(|| record(&id));
        }
        journal.close();
        assert_eq!(journal.written_and_dropped(), (0, records as u64));
    }

    #[test]
    fn a_file_that_hangs_does_not_keep_the_host_from_ending() {
        let folder = tempfile::tempdir().unwrap();
        let journal = started(folder.path().join("journal.db"));
        journal.close();
        let (ends, ended) = mpsc::channel();
        let (let_go, hangs) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ends = ends;
            let _ = hangs.recv();
        });
        *journal.writer.thread.lock().unwrap() = Some(Running { thread, ended });
        journal.close_within(Duration::from_millis(10));
        drop(let_go);
    }

    #[test]
    fn what_happens_while_it_is_off_is_not_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.db");
        let journal = Journal::new(Some(file.clone()));
        for id in 0..6 {
            journal.keep((id % 2 == 1).then(JournalBounds::default));
            let name = id.to_string();
            journal.note(|| if journal.is_on() { record(&name) } else { panic!("nobody reads it") });
        }
        journal.close();
        assert_eq!(ids(&file), [1, 3, 5]);
        let nowhere = Journal::new(None);
        nowhere.keep(Some(JournalBounds::default()));
        assert!(!nowhere.is_on());
    }
}
