//! The writer takes records off the hands of delivery and puts them into the file, on a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::delivery::clock::now;
use crate::journal::Bounds;
use crate::journal::chunk::Chunk;
use crate::journal::record::Record;
use crate::journal::store::{Store, StoreError};
use crate::meters::Count;

/// How long a record may wait before it can be asked for.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// Records that wait to be written; what is beyond is left out.
const WAITING_MAX: usize = 100_000;
/// A chunk is full then.
const CHUNK_BYTES: usize = 64 << 10;
/// Between two looks at what is too old or too much.
const TRIM_INTERVAL: Duration = Duration::from_secs(30);
/// Of one look; the next one is soon enough for the rest.
const TRIM_TIME_MAX: Duration = Duration::from_millis(500);
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
    full: Condvar,
    written: Count,
    /// Left out, or lost with a file that does not work.
    dropped: Count,
    bounds: Mutex<Bounds>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Tray {
    records: Vec<Record>,
    left_out: u64,
    closed: bool,
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
    pub(crate) fn note(&self, record: impl FnOnce() -> Record) {
        let Some(desk) = &self.desk else { return };
        // Before the lock, which all who work share.
        let record = record();
        let mut tray = desk.tray();
        if tray.closed {
            return;
        }
        if tray.records.len() >= WAITING_MAX {
            tray.left_out += 1;
            return;
        }
        tray.records.push(record);
    }

    /// How many records were written since the start, and how many were not.
    pub(crate) fn written_and_dropped(&self) -> (u64, u64) {
        self.desk.as_ref().map_or((0, 0), |desk| (desk.written.get(), desk.dropped.get()))
    }

    /// Writes what there is, and ends.
    pub(crate) fn close(&self) {
        let Some(desk) = &self.desk else { return };
        desk.tray().closed = true;
        desk.full.notify_all();
        let thread = desk.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic there has been told already.
        let _ = thread.map(JoinHandle::join);
    }
}

impl Desk {
    fn tray(&self) -> MutexGuard<'_, Tray> {
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has come within a moment, and whether it is the last.
    fn collect(&self) -> Tray {
        let tray = self.tray();
        let waited = self.full.wait_timeout_while(tray, FLUSH_INTERVAL, |tray| !tray.closed);
        let (mut tray, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let closed = tray.closed;
        let room = Vec::with_capacity(tray.records.len());
        Tray {
            records: std::mem::replace(&mut tray.records, room),
            left_out: std::mem::take(&mut tray.left_out),
            closed,
        }
    }
}

/// The file, as long as it works.
struct File<'f> {
    path: &'f Path,
    store: Option<Store>,
    /// It is left alone until then.
    again_at: Instant,
    trimmed_at: Instant,
}

fn write(desk: &Desk, path: &Path) {
    let now = Instant::now();
    let mut file = File { path, store: None, again_at: now, trimmed_at: now };
    loop {
        let Tray { records, left_out, closed } = desk.collect();
        if left_out > 0 {
            warn!(records = left_out, "the journal could not keep up: these are missing in it");
        }
        desk.dropped.add(left_out);
        let bounds = *desk.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = file.take(&records, &bounds);
        let count = if matches!(taken, Ok(true)) { &desk.written } else { &desk.dropped };
        count.add(records.len() as u64);
        if let Err(error) = taken {
            warn!("the journal {} does not work, and what happens meanwhile is missing in it: {error}", path.display());
            file.store = None;
            file.again_at = Instant::now() + FAILED_PAUSE;
        }
        if closed {
            return;
        }
    }
}

impl File<'_> {
    /// Whether they are written.
    fn take(&mut self, records: &[Record], bounds: &Bounds) -> Result<bool, StoreError> {
        let store = match &mut self.store {
            Some(store) => store,
            None if Instant::now() < self.again_at => return Ok(false),
            none => none.insert(Store::open(self.path)?),
        };
        let chunks = chunks(records);
        if !chunks.is_empty() {
            store.append(&chunks)?;
        }
        if self.trimmed_at.elapsed() >= TRIM_INTERVAL {
            let begun = Instant::now();
            while begun.elapsed() < TRIM_TIME_MAX && store.trim(now(), bounds)? {}
            self.trimmed_at = Instant::now();
        }
        Ok(true)
    }
}

fn chunks(records: &[Record]) -> Vec<Chunk> {
    let (mut chunks, mut chunk) = (Vec::new(), Chunk::default());
    for record in records {
        chunk.push(record);
        if chunk.records.len() >= CHUNK_BYTES {
            chunks.push(std::mem::take(&mut chunk));
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::What;
    use crate::journal::store::Reader;

    fn record(id: usize) -> Record {
        Record { at: 1, id: id.to_string().into(), source: "s".into(), event_type: "t".into(), what: What::Duplicate }
    }

    #[test]
    fn what_is_noted_is_in_the_file_once_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.db");
        let journal = Journal::start(file.clone(), Bounds::default());
        for id in 0..10_000 {
            journal.note(|| record(id));
        }
        journal.close();
        journal.note(|| record(10_000));
        assert_eq!(journal.written_and_dropped(), (10_000, 0));
        let mut ids = Vec::new();
        Reader::open(&file).unwrap().since(0, 0, |record| ids.push(record.id.parse::<usize>().unwrap())).unwrap();
        assert_eq!(ids, (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_journal_that_cannot_be_written_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let journal = Journal::start(folder.path().join("file/journal.db"), Bounds::default());
        for id in 0..=WAITING_MAX {
            journal.note(|| record(id));
        }
        journal.close();
        assert_eq!(journal.written_and_dropped().0, 0);
        assert!(journal.written_and_dropped().1 > WAITING_MAX as u64);
        Journal::off().note(|| panic!("nobody reads it"));
    }
}
