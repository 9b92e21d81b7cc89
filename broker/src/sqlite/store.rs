//! The contents of the file, and the statements that change them. Everything that writes runs in
//! the caller's transaction.

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::sqlite::row::{self, RowContent};
use crate::topology_item::kind_note;
use crate::{Finding, Object, Presence, QueueState, TopologyItem, topic_matches};

/// Maximum delivery count of a message. A count without a limit would overflow one day and end the consumer.
const DELIVERIES_MAX: i64 = 1 << 32;

/// A message that a consumer has taken.
#[derive(Debug)]
pub(super) struct TakenMessage {
    pub(super) id: i64,
    pub(super) redelivered: bool,
    pub(super) content: RowContent,
}

/// Where a message goes, or why it goes nowhere.
pub(super) enum Routed {
    /// Ids of the queues.
    To(Vec<i64>),
    NoExchange,
    NoQueue,
    Nowhere,
}

/// Creates the object if it is missing; a binding together with its queue.
pub(super) fn declare(db: &Connection, object: &Object) -> rusqlite::Result<()> {
    match object {
        Object::Exchange { name, kind } => {
            db.prepare_cached("INSERT INTO exchange (name, kind) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
                .execute([name, kind.as_str()])?;
        }
        Object::Queue { name, .. } => {
            declare_queue(db, name)?;
        }
        Object::Binding { exchange, routing_key, queue } => {
            let queue = declare_queue(db, queue)?;
            db.prepare_cached(
                "INSERT INTO binding (exchange, routing_key, queue) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?
            .execute(params![exchange, routing_key, queue])?;
        }
    }
    Ok(())
}

fn declare_queue(db: &Connection, name: &str) -> rusqlite::Result<i64> {
    db.prepare_cached("INSERT INTO queue (name) VALUES (?1) ON CONFLICT DO NOTHING")?.execute([name])?;
    db.prepare_cached("SELECT id FROM queue WHERE name = ?1")?.query_row([name], |row| row.get(0))
}

/// Inspects one topology item.
pub(super) fn inspect_topology(db: &Connection, item: &TopologyItem, now: i64) -> rusqlite::Result<Finding> {
    let mut notes = Vec::new();
    let there = match &item.object {
        Object::Exchange { name, kind } => find_exchange(db, name)?.map(|found| {
            notes.extend((found != kind.as_str()).then(|| kind_note(name, &found, *kind)));
            None
        }),
        Object::Queue { name, .. } => match find_queue(db, name)? {
            Some(queue) => Some(Some(inspect(db, queue, now)?)),
            None => None,
        },
        Object::Binding { exchange, routing_key, queue } => db
            .prepare_cached(
                "SELECT 1 FROM binding JOIN queue ON queue.id = binding.queue
                 WHERE exchange = ?1 AND routing_key = ?2 AND queue.name = ?3",
            )?
            .exists([exchange, routing_key, queue])?
            .then_some(None),
    };
    Ok(Finding { notes, ..Finding::new(item, there.map_or(Presence::Missing, Presence::There)) })
}

fn find_exchange(db: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT kind FROM exchange WHERE name = ?1")?
        .query_row([name], |row| row::text(row, 0))
        .optional()
}

pub(super) fn find_queue(db: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM queue WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

pub(super) fn route_to_queue(db: &Connection, queue: &str) -> rusqlite::Result<Routed> {
    Ok(find_queue(db, queue)?.map_or(Routed::NoQueue, |id| Routed::To(vec![id])))
}

pub(super) fn route_by_exchange(db: &Connection, exchange: &str, routing_key: &str) -> rusqlite::Result<Routed> {
    let Some(kind) = find_exchange(db, exchange)? else { return Ok(Routed::NoExchange) };
    let mut queues = Vec::new();
    let mut bindings = db.prepare_cached("SELECT routing_key, queue FROM binding WHERE exchange = ?1")?;
    let mut rows = bindings.query([exchange])?;
    while let Some(row) = rows.next()? {
        let bound = row::text(row, 0)?;
        let matches = match kind.as_str() {
            "fanout" => true,
            "direct" => bound == routing_key,
            _ => topic_matches(&bound, routing_key),
        };
        let queue = row.get(1)?;
        // A queue gets one copy, however many of its bindings match.
        if matches && !queues.contains(&queue) {
            queues.push(queue);
        }
    }
    Ok(if queues.is_empty() { Routed::Nowhere } else { Routed::To(queues) })
}

/// Puts a message into a queue. `properties` is JSON; `due_at` is in milliseconds since 1970.
pub(super) fn insert(
    db: &Connection,
    queue: i64,
    due_at: Option<i64>,
    (exchange, routing_key): (&str, &str),
    properties: &str,
    body: &[u8],
) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO message (queue, due_at) VALUES (?1, ?2)")?.execute(params![queue, due_at])?;
    db.prepare_cached(
        "INSERT INTO content (message, exchange, routing_key, properties, body)
         VALUES (last_insert_rowid(), ?1, ?2, ?3, ?4)",
    )?
    .execute(params![exchange, routing_key, properties, body])?;
    Ok(())
}

pub(super) fn add_consumer(db: &Connection, queue: i64, presence: &str) -> rusqlite::Result<i64> {
    db.prepare_cached("INSERT INTO consumer (queue, presence) VALUES (?1, ?2)")?.execute(params![queue, presence])?;
    Ok(db.last_insert_rowid())
}

/// Removes a consumer and gives back its messages. Returns whether it had any.
pub(super) fn remove_consumer(db: &Connection, consumer: i64) -> rusqlite::Result<bool> {
    let given_back =
        db.prepare_cached("UPDATE message SET consumer = NULL WHERE consumer = ?1")?.execute([consumer])?;
    db.prepare_cached("DELETE FROM consumer WHERE id = ?1")?.execute([consumer])?;
    Ok(given_back > 0)
}

/// Returns the consumers of other sessions, each with the name of its liveness lock.
pub(super) fn other_consumers(db: &Connection, presence: &str) -> rusqlite::Result<Vec<(i64, String)>> {
    db.prepare_cached("SELECT id, presence FROM consumer WHERE presence <> ?1")?
        .query_map([presence], |row| Ok((row.get(0)?, row::text(row, 1)?)))?
        .collect()
}

/// Returns whether a queue has a message that is ready for a consumer.
pub(super) fn has_ready(db: &Connection, queue: i64, now: i64) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM message WHERE queue = ?1 AND consumer IS NULL AND due_at IS NULL)
             OR EXISTS (SELECT 1 FROM message WHERE queue = ?1 AND consumer IS NULL AND due_at <= ?2)",
    )?
    .query_row([queue, now], |row| row.get(0))
}

/// Returns when the next delayed message of a queue is due, in milliseconds since 1970.
pub(super) fn next_due(db: &Connection, queue: i64) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT min(due_at) FROM message WHERE queue = ?1 AND consumer IS NULL AND due_at IS NOT NULL")?
        .query_row([queue], |row| row.get(0))
}

/// Assigns up to `count` messages to a consumer: delayed ones that are due, then the oldest.
pub(super) fn take(
    db: &Connection,
    queue: i64,
    consumer: i64,
    count: usize,
    now: i64,
) -> rusqlite::Result<Vec<TakenMessage>> {
    let mut ids: Vec<i64> = Vec::new();
    let mut find = |sql: &str, now: Option<i64>| -> rusqlite::Result<()> {
        let left = i64::try_from(count - ids.len()).unwrap_or(i64::MAX);
        let mut statement = db.prepare_cached(sql)?;
        let mut rows = match now {
            Some(now) => statement.query(params![queue, left, now])?,
            None => statement.query(params![queue, left])?,
        };
        while let Some(row) = rows.next()? {
            ids.push(row.get(0)?);
        }
        Ok(())
    };
    find(
        "SELECT id FROM message WHERE queue = ?1 AND consumer IS NULL AND due_at <= ?3 ORDER BY due_at, id LIMIT ?2",
        Some(now),
    )?;
    find("SELECT id FROM message WHERE queue = ?1 AND consumer IS NULL AND due_at IS NULL ORDER BY id LIMIT ?2", None)?;
    let mut update = db.prepare_cached(
        "UPDATE message SET consumer = ?2, deliveries = min(deliveries, ?3) + 1 WHERE id = ?1 RETURNING deliveries",
    )?;
    let mut content =
        db.prepare_cached("SELECT exchange, routing_key, properties, body FROM content WHERE message = ?1")?;
    let mut taken = Vec::with_capacity(ids.len());
    for id in ids {
        let deliveries: i64 = update.query_row([id, consumer, DELIVERIES_MAX], |row| row.get(0))?;
        taken.push(TakenMessage { id, redelivered: deliveries > 1, content: row::read(&mut content, id)? });
    }
    Ok(taken)
}

/// Removes a message.
pub(super) fn delete(db: &Connection, id: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([id])?;
    db.prepare_cached("DELETE FROM content WHERE message = ?1")?.execute([id])?;
    Ok(())
}

pub(super) fn inspect(db: &Connection, queue: i64, now: i64) -> rusqlite::Result<QueueState> {
    let count = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| -> rusqlite::Result<u64> {
        let count: i64 = db.prepare_cached(sql)?.query_row(parameters, |row| row.get(0))?;
        Ok(count.unsigned_abs())
    };
    let due =
        count("SELECT count(*) FROM message WHERE queue = ?1 AND consumer IS NULL AND due_at <= ?2", &[&queue, &now])?;
    let undelayed =
        count("SELECT count(*) FROM message WHERE queue = ?1 AND consumer IS NULL AND due_at IS NULL", &[&queue])?;
    Ok(QueueState {
        ready: undelayed + due,
        delayed: count(
            "SELECT count(*) FROM message WHERE queue = ?1 AND consumer IS NULL AND due_at > ?2",
            &[&queue, &now],
        )?,
        consumers: count("SELECT count(*) FROM consumer WHERE queue = ?1", &[&queue])?,
    })
}

/// Removes all messages that no consumer holds.
pub(super) fn purge(db: &Connection, queue: i64) -> rusqlite::Result<u64> {
    db.prepare_cached(
        "DELETE FROM content WHERE message IN (SELECT id FROM message WHERE queue = ?1 AND consumer IS NULL)",
    )?
    .execute([queue])?;
    let count = db.prepare_cached("DELETE FROM message WHERE queue = ?1 AND consumer IS NULL")?.execute([queue])?;
    Ok(count as u64)
}
