//! The journal's file: one SQLite database that the hosts of one plugin folder write, and commands read
//! while they do.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use crate::journal::Bounds;
use crate::journal::chunk::{self, Chunk};
use crate::journal::record::Record;
use crate::state::private_folder;

/// Of the tables and of the records in them. A file of another version is begun anew.
const VERSION: i64 = 2;
/// How long a host waits for another one that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Rows that are deleted at once, so that nobody waits for long.
const TRIM_ROWS: i64 = 500;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
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
}

impl Store {
    /// Makes the file where there is none.
    pub(super) fn open(file: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = file.parent() {
            private_folder(folder)?;
        }
        let connection = Connection::open(file)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A power cut may cost the last moments; a crash of the host costs nothing that was written.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != VERSION {
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
        Ok(Self { connection })
    }

    pub(super) fn append(&mut self, chunks: &[Chunk]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO chunks (first_at, last_at, filter, records) VALUES (?1, ?2, ?3, ?4)")?;
            for chunk in chunks {
                insert.execute(params![chunk.first_at, chunk.last_at, chunk.filter(), chunk.records])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Forgets what is too old or too much; whether there may be more of it.
    pub(super) fn trim(&mut self, now: i64, bounds: &Bounds) -> Result<bool, StoreError> {
        let age_max = i64::try_from(bounds.age_max.as_millis()).unwrap_or(i64::MAX);
        let oldest = now.saturating_sub(age_max);
        let bytes = self.bytes()?;
        let deleted = if bytes > bounds.bytes_max {
            let sql = "DELETE FROM chunks WHERE seq IN (SELECT seq FROM chunks ORDER BY seq LIMIT ?1)";
            self.connection.execute(sql, [TRIM_ROWS])?
        } else {
            // The oldest come first; clocks of several hosts may differ a little.
            let sql = "DELETE FROM chunks WHERE seq IN (SELECT seq FROM chunks ORDER BY seq LIMIT ?1) AND last_at < ?2";
            self.connection.execute(sql, [TRIM_ROWS, oldest])?
        };
        if deleted > 0 {
            // One page a row: whoever does not read them all frees but the first.
            let mut vacuum = self.connection.prepare_cached("PRAGMA incremental_vacuum")?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
        }
        Ok(deleted > 0)
    }

    /// Of the file, less what is free in it.
    fn bytes(&self) -> Result<u64, StoreError> {
        let number = |name: &str| self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        let pages = number("page_count")?.saturating_sub(number("freelist_count")?);
        Ok(u64::try_from(pages.saturating_mul(number("page_size")?)).unwrap_or(0))
    }
}

/// For commands. It reads and never writes.
pub(crate) struct Reader {
    connection: Connection,
}

impl Reader {
    pub(crate) fn open(file: &Path) -> Result<Self, StoreError> {
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
    pub(crate) fn about(&self, text: &str, mut take: impl FnMut(Record)) -> Result<(), StoreError> {
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
    pub(crate) fn back(
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

    /// The place of the last that is written.
    pub(crate) fn end(&self) -> Result<i64, StoreError> {
        Ok(self.connection.query_row("SELECT coalesce(max(seq), 0) FROM chunks", [], |row| row.get(0))?)
    }

    /// The records since a time, oldest first, that were written after the place `after`. The place of the last.
    pub(crate) fn since(&self, at: i64, after: i64, mut take: impl FnMut(Record)) -> Result<i64, StoreError> {
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
    use crate::journal::record::What;

    fn record(at: i64, id: &str) -> Record {
        Record { at, id: id.into(), source: "shop".into(), event_type: "t".into(), what: What::Duplicate }
    }

    fn chunk(records: &[Record]) -> Chunk {
        let mut chunk = Chunk::default();
        for record in records {
            chunk.push(record);
        }
        chunk
    }

    fn ids(read: impl FnOnce(&mut dyn FnMut(Record))) -> Vec<String> {
        let mut ids = Vec::new();
        read(&mut |record| ids.push(record.id.to_string()));
        ids
    }

    #[test]
    fn what_is_written_is_found_by_id_and_by_time_and_forgotten_by_age() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/journal.db");
        assert!(matches!(Reader::open(&file), Err(StoreError::Absent(_))));
        let mut store = Store::open(&file).unwrap();
        store.append(&[chunk(&[record(10, "a"), record(20, "b")]), chunk(&[record(30, "c")])]).unwrap();
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

        let bounds = Bounds { age_max: Duration::from_millis(50), bytes_max: 1 << 30 };
        assert!(!store.trim(60, &bounds).unwrap());
        assert!(store.trim(75, &bounds).unwrap());
        assert_eq!(ids(|take| assert_eq!(reader.since(0, 0, take).unwrap(), 2)), ["c"]);
        let reopened = Store::open(&file).unwrap();
        drop(reopened);
        assert_eq!(ids(|take| assert_eq!(reader.since(0, 0, take).unwrap(), 2)), ["c"], "opening forgets nothing");
    }

    #[test]
    fn a_file_that_is_too_large_forgets_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("journal.db")).unwrap();
        for round in 0..20 {
            let records: Vec<_> = (0..500).map(|id| record(round, &format!("{round}-{id}"))).collect();
            store.append(&[chunk(&records)]).unwrap();
        }
        let full = store.bytes().unwrap();
        let bounds = Bounds { bytes_max: full / 2, ..Bounds::default() };
        while store.trim(20, &bounds).unwrap() {}
        let kept = store.bytes().unwrap();
        assert!(kept <= full / 2);
        let number = |name: &str| store.connection.query_row(name, [], |row| row.get::<_, i64>(0)).unwrap();
        let file = number("PRAGMA page_count") * number("PRAGMA page_size");
        let file = u64::try_from(file).unwrap();
        assert!(file < kept + full / 10, "{file} bytes, of which {kept} are used");
    }
}
