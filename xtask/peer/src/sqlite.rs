//! SQLite peer: only the database work of a consumer, in the file of our queues, in large transactions.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rusqlite::{Connection, Transaction, TransactionBehavior};

/// Messages per transaction: the host's prefetch.
const BATCH: i64 = 256;
/// Bytes of the write-ahead log to keep, as in the broker.
const WAL_BYTES_KEPT: u32 = 64 << 20;
/// A consumer id that is never used: real ids are above zero.
const CONSUMER: i64 = -1;

/// Returns the time from the first claim to the last removal of `count` messages. Each transaction removes a batch,
/// then claims and reads the next one.
pub(crate) fn drain(file: &Path, queue: &str, count: usize) -> anyhow::Result<Duration> {
    let db = Connection::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.set_prepared_statement_cache_capacity(64);
    let queue: i64 = db.query_row("SELECT id FROM queue WHERE name = ?1", [queue], |row| row.get(0))?;
    let began = Instant::now();
    let (mut claimed, mut done, mut bytes) = (Vec::new(), 0, 0);
    loop {
        // The connection is ours alone, and no other transaction is open on it.
        let transaction = Transaction::new_unchecked(&db, TransactionBehavior::Immediate)?;
        done += remove(&transaction, &claimed)?;
        claimed = claim(&transaction, queue)?;
        bytes += read(&transaction, &claimed)?;
        transaction.commit()?;
        if claimed.is_empty() {
            break;
        }
    }
    let took = began.elapsed();
    if done != count || bytes == 0 {
        bail!("the queue had {done} events, not {count}");
    }
    Ok(took)
}

fn remove(db: &Connection, ids: &[i64]) -> rusqlite::Result<usize> {
    let mut message = db.prepare_cached("DELETE FROM message WHERE id = ?1")?;
    let mut content = db.prepare_cached("DELETE FROM content WHERE message = ?1")?;
    for id in ids {
        message.execute([id])?;
        content.execute([id])?;
    }
    Ok(ids.len())
}

fn claim(db: &Connection, queue: i64) -> rusqlite::Result<Vec<i64>> {
    let mut find = db.prepare_cached(
        "SELECT id FROM message WHERE queue = ?1 AND consumer IS NULL AND due_at IS NULL ORDER BY id LIMIT ?2",
    )?;
    let ids = find.query_map((queue, BATCH), |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    let mut update =
        db.prepare_cached("UPDATE message SET consumer = ?2, deliveries = deliveries + 1 WHERE id = ?1")?;
    for id in &ids {
        update.execute([*id, CONSUMER])?;
    }
    Ok(ids)
}

/// Reads these messages, and returns their total bytes.
fn read(db: &Connection, ids: &[i64]) -> rusqlite::Result<usize> {
    let mut content =
        db.prepare_cached("SELECT exchange, routing_key, properties, body FROM content WHERE message = ?1")?;
    let mut bytes = 0;
    for id in ids {
        bytes += content.query_row([id], |row| {
            let texts =
                row.get::<_, String>(0)?.len() + row.get::<_, String>(1)?.len() + row.get::<_, String>(2)?.len();
            Ok(texts + row.get::<_, Vec<u8>>(3)?.len())
        })?;
    }
    Ok(bytes)
}
