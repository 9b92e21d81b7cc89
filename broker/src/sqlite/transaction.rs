//! What one transaction does: the commands, and giving messages to consumers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::sqlite::command::{Command, Deliveries, Place, Publication, Ticket};
use crate::sqlite::liveness_lock::{self, LivenessLock};
use crate::sqlite::now;
use crate::sqlite::store::{self, Routed, Taken};
use crate::sqlite::wakeup::Wakeup;
use crate::{BrokerError, PublishError};

/// What one consumer takes in one transaction at most, so that others share in a backlog.
const TAKEN_PER_TRANSACTION: usize = 128;

type Answer = Box<dyn FnOnce()>;

/// What a transaction works with.
pub(super) struct Hands<'a> {
    pub(super) db: &'a Connection,
    pub(super) path: &'a Path,
    pub(super) liveness_lock: &'a mut Option<LivenessLock>,
    pub(super) wakeup: &'a mut Wakeup,
    pub(super) consumers: &'a mut BTreeMap<i64, Intake>,
    pub(super) holders: &'a mut HashMap<i64, i64>,
    pub(super) dropped: &'a mpsc::UnboundedSender<i64>,
}

/// What is to be done once a transaction is committed.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) answers: Vec<Answer>,
    pub(super) taken: Vec<(i64, Vec<Taken>)>,
    /// There is something for other processes.
    pub(super) ring: bool,
    pub(super) close: Option<oneshot::Sender<()>>,
}

/// A consumer, seen from the side that feeds it.
pub(super) struct Intake {
    pub(super) queue: i64,
    pub(super) prefetch: usize,
    pub(super) held: usize,
    pub(super) deliveries: Deliveries,
    /// The queue had no more at the last look, and nothing is heard of since: until then (milliseconds since 1970) there
    /// is nothing in it.
    empty_until: Option<i64>,
}

impl Intake {
    fn new(queue: i64, prefetch: u16, deliveries: Deliveries) -> Self {
        Self { queue, prefetch: prefetch.into(), held: 0, deliveries, empty_until: None }
    }

    pub(super) fn room(&self) -> usize {
        self.prefetch.saturating_sub(self.held).min(TAKEN_PER_TRANSACTION)
    }

    /// How long it need not look for messages; `None` as long as it may not have any.
    pub(super) fn until_look(&self, now: i64) -> Option<Duration> {
        let until = self.empty_until.map_or(0, |due| due.saturating_sub(now).max(0));
        (self.room() > 0).then(|| Duration::from_millis(until.unsigned_abs()))
    }

    /// There is nothing, before the next delayed message is due.
    pub(super) fn was_empty(&mut self, next_due: Option<i64>) {
        self.empty_until = Some(next_due.unwrap_or(i64::MAX));
    }

    pub(super) fn look_again(&mut self) {
        self.empty_until = None;
    }
}

impl Hands<'_> {
    pub(super) fn execute(&mut self, command: Command, effects: &mut Effects) -> rusqlite::Result<()> {
        match command {
            Command::Declare { items, reply } => {
                for part in &items {
                    store::declare(self.db, &part.object)?;
                }
                answer(effects, reply, ());
            }
            Command::InspectTopology { items, reply } => {
                self.forget_the_dead(effects)?;
                let findings = items.iter().map(|part| store::inspect_topology(self.db, part, now())).collect();
                answer(effects, reply, rusqlite::Result::<Vec<_>>::from(findings)?);
            }
            Command::Publish { publication, reply, .. } => {
                let published = self.publish(publication)?;
                effects.ring |= published.is_ok();
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

    /// So that only those consumers are counted that are alive.
    fn forget_the_dead(&mut self, effects: &mut Effects) -> rusqlite::Result<()> {
        let own = self.liveness_lock.as_ref().map_or("", LivenessLock::name);
        for consumer in dead_consumers(self.db, self.path, own)? {
            self.give_back(consumer, effects)?;
        }
        Ok(())
    }

    /// Forgets the consumer, and gives back what it has, to others here and elsewhere.
    pub(super) fn give_back(&mut self, consumer: i64, effects: &mut Effects) -> rusqlite::Result<()> {
        if store::remove_consumer(self.db, consumer)? {
            effects.ring = true;
            self.consumers.values_mut().for_each(Intake::look_again);
        }
        Ok(())
    }

    fn publish(&mut self, publication: Publication) -> rusqlite::Result<Result<(), PublishError>> {
        let Publication { place, exchange, routing_key, due_at, properties, body } = publication;
        let routed = match &place {
            Place::Exchange => store::route_by_exchange(self.db, &exchange, &routing_key)?,
            Place::Queue(queue) => store::route_to_queue(self.db, queue)?,
        };
        Ok(match (routed, place) {
            (Routed::To(queues), _) => {
                for queue in queues {
                    store::insert(self.db, queue, due_at, (&exchange, &routing_key), &properties, &body)?;
                    self.consumers.values_mut().filter(|intake| intake.queue == queue).for_each(Intake::look_again);
                }
                Ok(())
            }
            (Routed::NoQueue, Place::Queue(name)) => Err(PublishError::NotFound { what: "queue", name }),
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
        // Before the first look, so that nothing is published unheard in between.
        self.wakeup.listen();
        let consumer = store::add_consumer(self.db, id, liveness_lock.name())?;
        self.consumers.insert(consumer, Intake::new(id, prefetch, deliveries));
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
        let worth_a_look = |intake: &Intake| intake.until_look(now) == Some(Duration::ZERO);
        for (consumer, intake) in self.consumers.iter_mut().filter(|(_, intake)| worth_a_look(intake)) {
            let room = intake.room();
            let taken = store::take(self.db, intake.queue, *consumer, room, now)?;
            if taken.len() < room {
                intake.was_empty(store::next_due(self.db, intake.queue)?);
            }
            intake.held += taken.len();
            self.holders.extend(taken.iter().map(|taken| (taken.id, *consumer)));
            if !taken.is_empty() {
                effects.taken.push((*consumer, taken));
            }
        }
        Ok(())
    }
}

fn answer<T: 'static>(effects: &mut Effects, reply: oneshot::Sender<T>, value: T) {
    effects.answers.push(Box::new(move || {
        // Whoever asked may have given up waiting.
        let _ = reply.send(value);
    }));
}

fn no_queue(queue: &str) -> BrokerError {
    BrokerError::Refused(format!("there is no queue {queue:?}"))
}

/// The consumers of sessions that ended without good-bye; `own` is the session that asks.
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
