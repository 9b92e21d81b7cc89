//! The journal's file: one SQLite database that the hosts of one plugin folder write, and commands read
//! while they do.
//!
//! What is written goes to the log beside it (`-wal`), and from there into the database, which is a checkpoint: the only
//! time that the disk is waited for. The bound of its size is for both together. What the oldest chunks leave free is
//! used again, so that a journal which is full grows no more and moves nothing.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use config::JournalBounds;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use state::private_folder;

use crate::chunk::{self, Chunk};
use crate::record::Record;

/// Of the tables and of the records in them. A file of another version is begun anew.
const VERSION: i64 = 4;
/// How long a host waits for another one that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Of a new file. A chunk fills one or two of them; with smaller ones it is as many times more calls of the system.
const PAGE_BYTES: u32 = 16 << 10;
/// Pages that are kept at hand, in KiB as SQLite takes it: as much as one transaction writes. Nothing that was written is read
/// again, and memory that is used in turn pushes others out of the processor's caches.
const CACHE_KIB: i64 = 256;
/// Of the log, at most; and its share of a file that may not be large.
const LOG_BYTES_MAX: u32 = 64 << 20;
const LOG_SHARE: u64 = 4;
/// The log goes into the database when this part of its bound is full. The rest is for the transaction that fills it.
const CHECKPOINT_SHARE: u32 = 4;
/// Records of one transaction, before they are packed.
const TRANSACTION_BYTES_MAX: u32 = 1 << 20;
/// Rows that are deleted at once, so that nobody waits for long.
const DELETED_MAX: u32 = 500;
/// Pages that are given back at once.
const GIVEN_BACK_MAX: u64 = 256;
/// Chunks that are read before what was asked for: an event's coming is in the chunk of its first attempt, or shortly before.
const CHUNKS_BEFORE: i64 = 2;
/// Free space that is kept for what comes next, beside as much as a quarter of what is used.
const FREE_BYTES_KEPT: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("there is no journal at {0}: no host has run with this plugin folder, or its journal is switched off")]
    Absent(String),
    #[error("the journal {0} is of another version of this program")]
    OtherVersion(String),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// For the host.
pub(super) struct Store {
    connection: Connection,
    page_bytes: u32,
    log_bytes_max: u32,
    /// All that was written is in the database.
    is_settled: bool,
}

impl Store {
    /// Makes the file where there is none.
    pub(super) fn open(file: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = file.parent() {
            private_folder(folder)?;
        }
        let connection = Connection::open(file)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A power cut may cost what came since the last checkpoint; a crash of the host costs nothing that was written.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        let number = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        let page_bytes = u32::try_from(number("page_size")?).unwrap_or(PAGE_BYTES);
        if number("user_version")? != VERSION {
            connection.execute_batch(&format!(
                "BEGIN IMMEDIATE;
                 DROP TABLE IF EXISTS chunks;
                 CREATE TABLE chunks (
                     seq INTEGER PRIMARY KEY AUTOINCREMENT,
                     first_at INTEGER NOT NULL,
                     last_at INTEGER NOT NULL,
                     filter BLOB NOT NULL,
                     records BLOB NOT NULL
                 ) STRICT;
                 PRAGMA user_version = {VERSION};
                 COMMIT;"
            ))?;
        }
        Ok(Self { connection, page_bytes, log_bytes_max: 0, is_settled: false })
    }

    /// Writes them, and forgets the oldest to make room.
    pub(super) fn append(&mut self, chunks: &[Chunk], bounds: &JournalBounds) -> Result<(), StoreError> {
        self.bound_log(bounds)?;
        let bytes_max = TRANSACTION_BYTES_MAX.min(self.log_bytes_max / CHECKPOINT_SHARE) as usize;
        let mut rest = chunks;
        while !rest.is_empty() {
            let mut bytes = 0;
            let begins = |chunk: &Chunk| {
                bytes += chunk.records.len();
                bytes > bytes_max
            };
            let (some, others) = rest.split_at(rest.iter().position(begins).unwrap_or(rest.len()).max(1));
            self.append_together(some, bounds)?;
            rest = others;
        }
        Ok(())
    }

    fn append_together(&mut self, chunks: &[Chunk], bounds: &JournalBounds) -> Result<(), StoreError> {
        let rows: Vec<_> = chunks.iter().map(|chunk| (chunk, chunk.filter(), chunk.packed())).collect();
        let bytes: usize = rows.iter().map(|(_, filter, packed)| filter.len() + packed.len()).sum();
        // Of the last page of each row a part is left empty, and one of a row's pages has others in it.
        let needed = bytes as u64 + 2 * rows.len() as u64 * u64::from(self.page_bytes);
        let bytes_max = (bounds.bytes_max - u64::from(self.log_bytes_max)).saturating_sub(needed);
        self.is_settled = false;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        make_room(&transaction, bytes_max, self.page_bytes.into())?;
        let mut insert = transaction
            .prepare_cached("INSERT INTO chunks (first_at, last_at, filter, records) VALUES (?1, ?2, ?3, ?4)")?;
        for (chunk, filter, packed) in rows {
            insert.execute(params![chunk.first_at, chunk.last_at, filter, packed])?;
        }
        drop(insert);
        Ok(transaction.commit()?)
    }

    /// Forgets what is too old, and gives back what is free for long; whether there may be more of it.
    pub(super) fn tidy(&mut self, now: i64, bounds: &JournalBounds) -> Result<bool, StoreError> {
        self.bound_log(bounds)?;
        let age_max = i64::try_from(bounds.age_max.as_millis()).unwrap_or(i64::MAX);
        // The oldest come first; clocks of several hosts may differ a little.
        let sql = "DELETE FROM chunks WHERE seq IN (SELECT seq FROM chunks ORDER BY seq LIMIT ?1) AND last_at < ?2";
        let deleted = self.connection.execute(sql, params![DELETED_MAX, now.saturating_sub(age_max)])?;
        let Pages { used, free } = pages(&self.connection)?;
        let page_bytes = u64::from(self.page_bytes);
        let kept = (used / 4).max(FREE_BYTES_KEPT / page_bytes);
        let most = ((bounds.bytes_max - u64::from(self.log_bytes_max)) / page_bytes).saturating_sub(used);
        let beyond = free.saturating_sub(kept.min(most));
        if beyond > 0 {
            // One page a row: whoever does not read them all frees but the first.
            let sql = format!("PRAGMA incremental_vacuum({})", beyond.min(GIVEN_BACK_MAX));
            let mut vacuum = self.connection.prepare(&sql)?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
        }
        if deleted > 0 || beyond > 0 {
            self.is_settled = false;
            return Ok(true);
        }
        if !std::mem::replace(&mut self.is_settled, true) {
            // What came since the last one is safe from a power cut then.
            self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
        Ok(false)
    }

    /// Unless a reader holds it up: what somebody reads stays in the log until he has done.
    fn bound_log(&mut self, bounds: &JournalBounds) -> Result<(), StoreError> {
        let share = bounds.bytes_max / LOG_SHARE;
        let bytes_max = u32::try_from(share).unwrap_or(u32::MAX).min(LOG_BYTES_MAX);
        if self.log_bytes_max != bytes_max {
            self.connection.pragma_update(
                None,
                "wal_autocheckpoint",
                bytes_max / CHECKPOINT_SHARE / self.page_bytes,
            )?;
            self.connection.pragma_update(None, "journal_size_limit", bytes_max)?;
            self.log_bytes_max = bytes_max;
        }
        Ok(())
    }
}

/// Of the database, without its log.
struct Pages {
    used: u64,
    free: u64,
}

fn pages(connection: &Connection) -> Result<Pages, StoreError> {
    let number = |name: &str| {
        let number = connection.prepare_cached(name)?.query_row([], |row| row.get::<_, i64>(0))?;
        Ok::<_, StoreError>(u64::try_from(number).unwrap_or(0))
    };
    let free = number("PRAGMA freelist_count")?;
    Ok(Pages { used: number("PRAGMA page_count")?.saturating_sub(free), free })
}

/// Forgets the oldest chunks until what is used is within the bound, or there have been many: the next time is soon.
fn make_room(transaction: &Transaction<'_>, bytes_max: u64, page_bytes: u64) -> Result<(), StoreError> {
    let mut deleted = 0;
    while deleted < DELETED_MAX {
        let mut beyond = (pages(transaction)?.used * page_bytes).saturating_sub(bytes_max);
        if beyond == 0 {
            break;
        }
        let sql = "SELECT seq, length(filter) + length(records) FROM chunks ORDER BY seq";
        let mut sizes = transaction.prepare_cached(sql)?;
        let mut rows = sizes.query([])?;
        let mut last = None;
        while beyond > 0 && deleted < DELETED_MAX {
            let Some(row) = rows.next()? else { break };
            last = Some(row.get::<_, i64>(0)?);
            beyond = beyond.saturating_sub(row.get::<_, u32>(1)?.into());
            deleted += 1;
        }
        drop(rows);
        if last.is_none() {
            break;
        }
        transaction.prepare_cached("DELETE FROM chunks WHERE seq <= ?1")?.execute([last])?;
    }
    Ok(())
}

/// For commands. It reads and never writes.
pub struct Reader {
    connection: Connection,
}

impl Reader {
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        if !file.exists() {
            return Err(StoreError::Absent(file.display().to_string()));
        }
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != VERSION {
            return Err(StoreError::OtherVersion(file.display().to_string()));
        }
        Ok(Self { connection })
    }

    /// The records of the chunks that may have this id or subject, oldest first; the caller looks which of them
    /// do.
    pub fn about(&self, text: &str, mut take: impl FnMut(Record)) -> Result<(), StoreError> {
        let key = chunk::key(text);
        let mut filters = self.connection.prepare("SELECT seq, filter FROM chunks ORDER BY seq")?;
        let mut records = self.connection.prepare("SELECT records FROM chunks WHERE seq = ?1")?;
        let mut rows = filters.query([])?;
        while let Some(row) = rows.next()? {
            let filter = row.get_ref(1)?.as_blob().unwrap_or_default();
            if !chunk::may_have(filter, key) {
                continue;
            }
            let mut found = records.query([row.get::<_, i64>(0)?])?;
            if let Some(row) = found.next()? {
                chunk::records(row.get_ref(0)?.as_blob().unwrap_or_default()).into_iter().for_each(&mut take);
            }
        }
        Ok(())
    }

    /// All records of each chunk that may have some of between two times, the last chunk first, until there are enough.
    pub fn back(
        &self,
        since: i64,
        until: i64,
        mut take: impl FnMut(Vec<Record>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let sql = "SELECT records FROM chunks WHERE last_at >= ?1 AND first_at <= ?2 ORDER BY seq DESC";
        let mut chunks = self.connection.prepare_cached(sql)?;
        let mut rows = chunks.query([since, until])?;
        while let Some(row) = rows.next()? {
            if take(chunk::records(row.get_ref(0)?.as_blob().unwrap_or_default())).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// A place after which are so many records since a time that are wanted, if there are; and what came shortly before
    /// them, for one is often understood by another.
    pub fn before_last(&self, count: usize, since: i64, wants: impl Fn(&Record) -> bool) -> Result<i64, StoreError> {
        let sql = "SELECT seq, records FROM chunks WHERE last_at >= ?1 ORDER BY seq DESC";
        let mut chunks = self.connection.prepare_cached(sql)?;
        let mut rows = chunks.query([since])?;
        let mut found = 0;
        while let Some(row) = rows.next()? {
            let records = chunk::records(row.get_ref(1)?.as_blob().unwrap_or_default());
            found += records.iter().filter(|record| record.at >= since && wants(record)).count();
            if found >= count {
                return Ok(row.get::<_, i64>(0)?.saturating_sub(1 + CHUNKS_BEFORE).max(0));
            }
        }
        Ok(0)
    }

    /// The place of the last that is written.
    pub fn end(&self) -> Result<i64, StoreError> {
        Ok(self.connection.query_row("SELECT coalesce(max(seq), 0) FROM chunks", [], |row| row.get(0))?)
    }

    /// The records since a time, oldest first, that were written after the place `after`. The place of the last.
    pub fn since(&self, at: i64, after: i64, mut take: impl FnMut(Record)) -> Result<i64, StoreError> {
        let mut chunks = self
            .connection
            .prepare_cached("SELECT seq, records FROM chunks WHERE seq > ?1 AND last_at >= ?2 ORDER BY seq")?;
        let mut rows = chunks.query([after, at])?;
        let mut last = after;
        while let Some(row) = rows.next()? {
            last = row.get(0)?;
            let records = chunk::records(row.get_ref(1)?.as_blob().unwrap_or_default());
            records.into_iter().filter(|record| record.at >= at).for_each(&mut take);
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Lent, What};

    /// Of events of these ids, at these times.
    fn chunk(events: &[(i64, &str)]) -> Chunk {
        let mut chunk = Chunk::default();
        for (at, id) in events {
            chunk.write(&Lent { at: *at, id, source: "shop", event_type: "t", what: What::Duplicate }, None);
        }
        chunk
    }

    /// With so many bytes after the records, which make no sense and cannot be packed.
    fn large(events: &[(i64, &str)], bytes: usize) -> Chunk {
        let mut chunk = chunk(events);
        chunk.records.extend([0xff; 16]);
        let mut random = fastrand::Rng::with_seed(1);
        chunk.records.resize_with(bytes, || random.u8(..));
        chunk
    }

    fn ids(read: impl FnOnce(&mut dyn FnMut(Record))) -> Vec<String> {
        let mut ids = Vec::new();
        read(&mut |record| ids.push(record.id.to_string()));
        ids
    }

    #[test]
    fn the_last_are_found_without_reading_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.db");
        let mut store = Store::open(&file).unwrap();
        // One more each time, at the time of its place.
        let chunks: Vec<_> = (1..=9).map(|at| chunk(&[(at, if at % 2 == 0 { "even" } else { "odd" })])).collect();
        store.append(&chunks, &JournalBounds::default()).unwrap();
        let reader = Reader::open(&file).unwrap();
        let first = |count, since, id: &str| {
            let wants = |record: &Record| id.is_empty() || *record.id == *id;
            let place = reader.before_last(count, since, wants).unwrap();
            let mut times = Vec::new();
            reader.since(0, place, |record| times.push(record.at)).unwrap();
            times[0]
        };
        assert_eq!(first(1, 0, ""), 9 - CHUNKS_BEFORE);
        assert_eq!(first(2, 0, "even"), 6 - CHUNKS_BEFORE);
        assert_eq!(first(2, 7, "even"), 1, "there are not so many");
        assert_eq!(first(9, 0, ""), 1);
        assert_eq!(first(99, 0, ""), 1);
    }

    #[test]
    fn what_is_written_is_found_by_id_and_by_time_and_forgotten_by_age() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/journal.db");
        assert!(matches!(Reader::open(&file), Err(StoreError::Absent(_))));
        let mut store = Store::open(&file).unwrap();
        let chunks = [chunk(&[(10, "a"), (20, "b")]), chunk(&[(30, "c")])];
        store.append(&chunks, &JournalBounds::default()).unwrap();
        let reader = Reader::open(&file).unwrap();
        assert_eq!(ids(|take| reader.about("c", take).unwrap()), ["c"]);
        assert_eq!(ids(|take| assert_eq!(reader.since(15, 0, take).unwrap(), 2)), ["b", "c"]);
        assert_eq!(ids(|take| assert_eq!(reader.since(0, 2, take).unwrap(), 2)), [""; 0]);
        assert_eq!(reader.end().unwrap(), 2);
        for (since, until, most, expected) in
            [(0, 99, 9, &["c", "a", "b"][..]), (0, 99, 1, &["c"]), (0, 29, 9, &["a", "b"]), (21, 99, 9, &["c"])]
        {
            let mut chunks = 0;
            let found = ids(|take| {
                let back = reader.back(since, until, |records| {
                    records.into_iter().for_each(&mut *take);
                    chunks += 1;
                    if chunks < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
                back.unwrap();
            });
            assert_eq!(found, expected);
        }

        let bounds = JournalBounds { age_max: Duration::from_millis(50), bytes_max: 1 << 30 };
        assert!(!store.tidy(60, &bounds).unwrap());
        assert!(store.tidy(75, &bounds).unwrap());
        assert_eq!(ids(|take| assert_eq!(reader.since(0, 0, take).unwrap(), 2)), ["c"]);
        let reopened = Store::open(&file).unwrap();
        drop(reopened);
        assert_eq!(ids(|take| assert_eq!(reader.since(0, 0, take).unwrap(), 2)), ["c"], "opening forgets nothing");
    }

    #[test]
    fn a_full_journal_forgets_the_oldest_and_stays_within_its_bound_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.db");
        let on_disk = || {
            let files = ["journal.db", "journal.db-wal"].map(|name| std::fs::metadata(folder.path().join(name)));
            files.into_iter().flatten().map(|file| file.len()).sum::<u64>()
        };
        let mut store = Store::open(&file).unwrap();
        let write = |store: &mut Store, events: std::ops::Range<i64>, bounds: &JournalBounds| {
            let mut most = 0;
            for event in events {
                let large = large(&[(event, "x"); 2], 40_000);
                store.append(&[large, chunk(&[(event, "x")])], bounds).unwrap();
                most = most.max(on_disk());
            }
            most
        };
        for bytes_max in [1 << 20, 8 << 20] {
            let bounds = JournalBounds { bytes_max, ..JournalBounds::default() };
            let most = write(&mut store, 0..500, &bounds);
            assert!(most <= bytes_max && most > bytes_max / 10 * 8, "{most} bytes of {bytes_max}");
        }
        let kept = || {
            let mut kept = Vec::new();
            Reader::open(&file).unwrap().since(0, 0, |record| kept.push(record.at)).unwrap();
            kept.dedup();
            kept
        };
        let first = kept()[0];
        assert_eq!(kept(), (first..500).collect::<Vec<_>>());
        assert!(first < 420, "only {} of 500 are kept", 500 - first);

        // The operator wants it smaller.
        let bounds = JournalBounds { bytes_max: 2 << 20, ..JournalBounds::default() };
        write(&mut store, 500..510, &bounds);
        while store.tidy(510, &bounds).unwrap() {}
        let most = write(&mut store, 510..520, &bounds);
        assert!(most <= bounds.bytes_max, "{most} bytes");
        assert_eq!(*kept().last().unwrap(), 519);
    }

    #[test]
    fn what_is_too_old_leaves_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal.db");
        let mut store = Store::open(&file).unwrap();
        for at in 0..1000 {
            store.append(&[large(&[(at, "x")], 60_000)], &JournalBounds::default()).unwrap();
        }
        let bounds = JournalBounds { age_max: Duration::from_millis(10), ..JournalBounds::default() };
        while store.tidy(1000, &bounds).unwrap() {}
        drop(store);
        let bytes = std::fs::metadata(&file).unwrap().len();
        assert!(bytes <= FREE_BYTES_KEPT + (2 << 20), "{bytes} bytes");
    }
}
