//! The work of one transaction: commands, and assigning messages to consumers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::sqlite::command::{Command, Deliveries, Publication, PublicationTarget, Ticket};
use crate::sqlite::liveness_lock::{self, LivenessLock};
use crate::sqlite::now;
use crate::sqlite::store::{self, Routed, TakenMessage};
use crate::sqlite::wakeup::Wakeup;
use crate::{BrokerError, PublishError};

/// Maximum messages that one consumer takes in one transaction, so that others get a share of a backlog.
const TAKEN_PER_TRANSACTION: usize = 128;

type PendingReply = Box<dyn FnOnce()>;

/// Everything that a transaction works with.
pub(super) struct TransactionContext<'a> {
    pub(super) db: &'a Connection,
    pub(super) path: &'a Path,
    pub(super) liveness_lock: &'a mut Option<LivenessLock>,
    pub(super) wakeup: &'a mut Wakeup,
    pub(super) consumers: &'a mut BTreeMap<i64, ConsumerFeed>,
    pub(super) holders: &'a mut HashMap<i64, i64>,
    pub(super) dropped: &'a mpsc::UnboundedSender<i64>,
}

/// Work that follows once the transaction is committed.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) replies: Vec<PendingReply>,
    pub(super) taken: Vec<(i64, Vec<TakenMessage>)>,
    /// Whether other processes need a wakeup.
    pub(super) wake_others: bool,
    pub(super) close: Option<oneshot::Sender<()>>,
}

/// A consumer, as seen by the thread that feeds it.
pub(super) struct ConsumerFeed {
    pub(super) queue: i64,
    pub(super) prefetch: usize,
    pub(super) held: usize,
    pub(super) deliveries: Deliveries,
    /// Set if the queue was exhausted at the last look, and nothing new is known since. Until this
    /// time (milliseconds since 1970) there is nothing to take.
    empty_until: Option<i64>,
}

impl ConsumerFeed {
    fn new(queue: i64, prefetch: u16, deliveries: Deliveries) -> Self {
        Self { queue, prefetch: prefetch.into(), held: 0, deliveries, empty_until: None }
    }

    pub(super) fn room(&self) -> usize {
        self.prefetch.saturating_sub(self.held).min(TAKEN_PER_TRANSACTION)
    }

    /// Returns how long the consumer need not look for messages; `None` while its prefetch window is full.
    pub(super) fn until_look(&self, now: i64) -> Option<Duration> {
        let until = self.empty_until.map_or(0, |due| due.saturating_sub(now).max(0));
        (self.room() > 0).then(|| Duration::from_millis(until.unsigned_abs()))
    }

    /// Records that the queue is exhausted until the next delayed message is due.
    pub(super) fn was_empty(&mut self, next_due: Option<i64>) {
        self.empty_until = Some(next_due.unwrap_or(i64::MAX));
    }

    pub(super) fn look_again(&mut self) {
        self.empty_until = None;
    }
}

impl TransactionContext<'_> {
    pub(super) fn execute(&mut self, command: Command, effects: &mut Effects) -> rusqlite::Result<()> {
        match command {
            Command::Declare { items, reply } => {
                for item in &items {
                    store::declare(self.db, &item.object)?;
                }
                answer(effects, reply, ());
            }
            Command::InspectTopology { items, reply } => {
                self.forget_the_dead(effects)?;
                let findings = items.iter().map(|item| store::inspect_topology(self.db, item, now())).collect();
                answer(effects, reply, rusqlite::Result::<Vec<_>>::from(findings)?);
            }
            Command::Publish { publication, reply, .. } => {
                let published = self.publish(publication)?;
                effects.wake_others |= published.is_ok();
                answer(effects, reply, published);
            }
            Command::Consume { queue, prefetch, deliveries, reply } => {
                let ticket = self.consume(&queue, prefetch, deliveries)?;
                answer(effects, reply, ticket);
            }
            Command::CloseConsumer { id, reply } => {
                self.remove_consumer(id, effects)?;
                answer(effects, reply, ());
            }
            Command::Inspect { queue, reply } => {
                self.forget_the_dead(effects)?;
                let state = match store::find_queue(self.db, &queue)? {
                    Some(queue) => Some(store::inspect(self.db, queue, now())?),
                    None => None,
                };
                answer(effects, reply, state);
            }
            Command::Purge { queue, reply } => {
                let purged = match store::find_queue(self.db, &queue)? {
                    Some(queue) => Ok(store::purge(self.db, queue)?),
                    None => Err(no_queue(&queue)),
                };
                answer(effects, reply, purged);
            }
            Command::Close { reply } => {
                for consumer in self.consumers.keys().copied().collect::<Vec<_>>() {
                    self.remove_consumer(consumer, effects)?;
                }
                effects.close = Some(reply);
            }
        }
        Ok(())
    }

    /// Removes the consumers of dead sessions, so that only live ones are counted.
    fn forget_the_dead(&mut self, effects: &mut Effects) -> rusqlite::Result<()> {
        let own = self.liveness_lock.as_ref().map_or("", LivenessLock::name);
        for consumer in dead_consumers(self.db, self.path, own)? {
            self.give_back(consumer, effects)?;
        }
        Ok(())
    }

    /// Removes a consumer and gives back its messages, to consumers here and in other processes.
    pub(super) fn give_back(&mut self, consumer: i64, effects: &mut Effects) -> rusqlite::Result<()> {
        if store::remove_consumer(self.db, consumer)? {
            effects.wake_others = true;
            self.consumers.values_mut().for_each(ConsumerFeed::look_again);
        }
        Ok(())
    }

    fn publish(&mut self, publication: Publication) -> rusqlite::Result<Result<(), PublishError>> {
        let Publication { target, exchange, routing_key, due_at, properties, body } = publication;
        let routed = match &target {
            PublicationTarget::Exchange => store::route_by_exchange(self.db, &exchange, &routing_key)?,
            PublicationTarget::Queue(queue) => store::route_to_queue(self.db, queue)?,
        };
        Ok(match (routed, target) {
            (Routed::To(queues), _) => {
                for queue in queues {
                    store::insert(self.db, queue, due_at, (&exchange, &routing_key), &properties, &body)?;
                    self.consumers.values_mut().filter(|feed| feed.queue == queue).for_each(ConsumerFeed::look_again);
                }
                Ok(())
            }
            (Routed::NoQueue, PublicationTarget::Queue(name)) => Err(PublishError::NotFound { what: "queue", name }),
            (Routed::NoExchange, _) => Err(PublishError::NotFound { what: "exchange", name: exchange }),
            (Routed::Nowhere | Routed::NoQueue, _) => Err(PublishError::Unroutable { exchange, routing_key }),
        })
    }

    fn consume(
        &mut self,
        queue: &str,
        prefetch: u16,
        deliveries: Deliveries,
    ) -> rusqlite::Result<Result<Ticket, BrokerError>> {
        let Some(id) = store::find_queue(self.db, queue)? else { return Ok(Err(no_queue(queue))) };
        let liveness_lock = match self.liveness_lock.take().map_or_else(|| LivenessLock::take(self.path), Ok) {
            Ok(liveness_lock) => self.liveness_lock.insert(liveness_lock),
            Err(error) => {
                return Ok(Err(BrokerError::Refused(format!("cannot lock a file beside the database: {error}"))));
            }
        };
        // Listen before the first look, so that no message published in between goes unnoticed.
        self.wakeup.listen();
        let consumer = store::add_consumer(self.db, id, liveness_lock.name())?;
        self.consumers.insert(consumer, ConsumerFeed::new(id, prefetch, deliveries));
        Ok(Ok(Ticket { id: consumer, dropped: self.dropped.clone() }))
    }

    pub(super) fn remove_consumer(&mut self, consumer: i64, effects: &mut Effects) -> rusqlite::Result<()> {
        if self.consumers.remove(&consumer).is_some() {
            self.holders.retain(|_, holder| *holder != consumer);
            self.give_back(consumer, effects)?;
        }
        Ok(())
    }

    pub(super) fn take(&mut self, now: i64, effects: &mut Effects) -> rusqlite::Result<()> {
        let worth_a_look = |feed: &ConsumerFeed| feed.until_look(now) == Some(Duration::ZERO);
        for (consumer, feed) in self.consumers.iter_mut().filter(|(_, feed)| worth_a_look(feed)) {
            let room = feed.room();
            let taken = store::take(self.db, feed.queue, *consumer, room, now)?;
            if taken.len() < room {
                feed.was_empty(store::next_due(self.db, feed.queue)?);
            }
            feed.held += taken.len();
            self.holders.extend(taken.iter().map(|taken| (taken.id, *consumer)));
            if !taken.is_empty() {
                effects.taken.push((*consumer, taken));
            }
        }
        Ok(())
    }
}

fn answer<T: 'static>(effects: &mut Effects, reply: oneshot::Sender<T>, value: T) {
    effects.replies.push(Box::new(move || {
        // The caller may have stopped waiting.
        let _ = reply.send(value);
    }));
}

fn no_queue(queue: &str) -> BrokerError {
    BrokerError::Refused(format!("there is no queue {queue:?}"))
}

/// Returns the consumers of sessions that ended without closing them; `own` is the lock name of the calling session.
pub(super) fn dead_consumers(db: &Connection, path: &Path, own: &str) -> rusqlite::Result<Vec<i64>> {
    let mut ended: HashMap<String, bool> = HashMap::new();
    let mut dead = Vec::new();
    for (consumer, liveness_lock) in store::other_consumers(db, own)? {
        let has_ended = *ended
            .entry(liveness_lock)
            .or_insert_with_key(|liveness_lock| liveness_lock::has_ended(path, liveness_lock));
        if has_ended {
            dead.push(consumer);
        }
    }
    Ok(dead)
}
