//! Publishes messages with publisher confirms.
//!
//! One task, [`PublishTask`], owns the channel that messages are published on. RabbitMQ answers a
//! bad publish by closing its channel, together with everything that is not confirmed yet. So the
//! task keeps messages that are likely to be refused off that channel. If it closes all the same,
//! the messages in flight are published again, each on a channel of its own, so that only the bad
//! one fails. A message may then be published twice, but none is lost.
//!
//! The task is also needed because lapin attaches a returned message to the next confirmation,
//! which may belong to another message: see [`PublishTask::settle`].

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::amqp::connection::{AmqpConnection, refusal};
use crate::amqp::convert::{self, short_string};
use crate::amqp::declarer::Declarer;
use crate::amqp::guard::arrived;
use crate::turnstile::Turnstile;
use crate::{BrokerError, Message, PublishError, RetryTier, Target};

/// Maximum number of published, unconfirmed messages; further callers wait.
const UNCONFIRMED_MAX: usize = 4096;
/// Maximum bytes of their bodies together. A larger body waits until it is alone.
const UNCONFIRMED_BYTES_MAX: u32 = 64 << 20;
/// Maximum bytes of a body on the shared channel. A larger one gets a channel of its own, because
/// RabbitMQ may refuse it as too large.
const SHARED_BODY_BYTES_MAX: usize = 1 << 20;
/// Maximum number of single-message channels at a time.
const SINGLE_CHANNELS_MAX: usize = 8;
const NOT_FOUND: u16 = 404;
/// Bytes reserved in a frame: its own, and the properties other than headers (flags, and 13
/// properties of at most 256 bytes).
const FRAME_BYTES_RESERVED: usize = 4096;

#[derive(Debug)]
pub(super) struct Publisher {
    connection: Arc<AmqpConnection>,
    jobs: mpsc::Sender<Job>,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Exchanges that are known to exist, so that publishing to a missing one closes no channel in use.
    exchanges: Mutex<HashSet<String>>,
    /// Keeps a message from overtaking one whose exchange is still being checked. It also saves
    /// checks: each one that finds nothing uses up a channel.
    turnstile: Turnstile,
    _task: AbortOnDropHandle<()>,
}

impl Publisher {
    pub(super) fn start(connection: Arc<AmqpConnection>) -> Self {
        let (jobs, receiver) = mpsc::channel(UNCONFIRMED_MAX);
        let task = PublishTask {
            connection: Arc::clone(&connection),
            channel: None,
            in_flight: FuturesUnordered::new(),
            single: FuturesUnordered::new(),
            single_channels: Arc::new(Semaphore::new(SINGLE_CHANNELS_MAX)),
            returned: Vec::new(),
        };
        Self {
            connection,
            jobs,
            slots: Arc::new(Semaphore::new(UNCONFIRMED_MAX)),
            bytes: Arc::new(Semaphore::new(UNCONFIRMED_BYTES_MAX as usize)),
            exchanges: Mutex::new(HashSet::new()),
            turnstile: Turnstile::default(),
            _task: AbortOnDropHandle::new(tokio::spawn(task.run(receiver))),
        }
    }

    pub(super) fn headers_bytes_max(&self) -> usize {
        self.connection.frame_bytes_max().saturating_sub(FRAME_BYTES_RESERVED)
    }

    pub(super) async fn publish(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        tokio::select! {
            biased;
            published = self.publish_and_wait(target, message) => published,
            // lapin may wait forever for anything started on a connection that is breaking, such as a channel.
            () = self.connection.gone() => Err(self.connection.lost(None).into()),
        }
    }

    async fn publish_and_wait(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        let destination = Destination::of(target);
        let envelope = Envelope::new(&destination, message, self.connection.frame_bytes_max())?;
        let (outcome, answer) = oneshot::channel();
        self.turnstile.pass(self.enter(&destination, envelope, outcome)).await?;
        match answer.await.map_err(|_| self.connection.lost(None))? {
            PublishOutcome::Confirmed => Ok(()),
            PublishOutcome::Returned => Err(destination.unroutable()),
            PublishOutcome::Rejected => Err(PublishError::Refused(
                "it could not be put into a queue, which may be full or without a leader".to_owned(),
            )),
            PublishOutcome::Failed(Failure::Refused(NOT_FOUND, _)) => {
                self.exchanges().remove(&destination.exchange);
                Err(PublishError::NotFound { what: "exchange", name: destination.exchange })
            }
            PublishOutcome::Failed(Failure::Refused(_, text)) => Err(PublishError::Refused(text)),
            PublishOutcome::Failed(Failure::Lost(error)) => Err(PublishError::Unconfirmed(error)),
        }
    }

    /// Hands the message to the publish task.
    async fn enter(
        &self,
        destination: &Destination,
        envelope: Envelope,
        outcome: oneshot::Sender<PublishOutcome>,
    ) -> Result<(), PublishError> {
        self.look_for(destination).await?;
        let bytes = u32::try_from(envelope.body.len()).unwrap_or(u32::MAX).min(UNCONFIRMED_BYTES_MAX);
        // The semaphores are never closed, so they cannot return an error.
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| self.connection.lost(None))?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.map_err(|_| self.connection.lost(None))?;
        let job = Job { envelope, outcome, _room: (slot, bytes) };
        self.jobs.send(job).await.map_err(|_| self.connection.lost(None).into())
    }

    /// Fails if the exchange does not exist.
    async fn look_for(&self, destination: &Destination) -> Result<(), PublishError> {
        if destination.exchange.is_empty() || self.exchanges().contains(&destination.exchange) {
            return Ok(());
        }
        if !Declarer::new(&self.connection).exchange_exists(&destination.exchange).await? {
            return Err(PublishError::NotFound { what: "exchange", name: destination.exchange.clone() });
        }
        self.exchanges().insert(destination.exchange.clone());
        Ok(())
    }

    fn exchanges(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A publish target in AMQP's terms.
struct Destination {
    exchange: String,
    routing_key: String,
}

impl Destination {
    fn of(target: Target<'_>) -> Self {
        let (exchange, routing_key) = match target {
            Target::Exchange { exchange, routing_key } => (exchange.to_owned(), routing_key),
            // The default exchange routes to every queue by its name.
            Target::Queue(queue) => (String::new(), queue),
            // The tier's exchange accepts any key. The key then leads from the tier to the plugin's queue.
            Target::PluginLater { names, plugin, delay } => (names.retry(RetryTier::for_delay(delay)), plugin),
        };
        Self { exchange, routing_key: routing_key.to_owned() }
    }

    fn unroutable(self) -> PublishError {
        if self.exchange.is_empty() {
            return PublishError::NotFound { what: "queue", name: self.routing_key };
        }
        PublishError::Unroutable { exchange: self.exchange, routing_key: self.routing_key }
    }
}

/// A message in the form in which it is sent.
#[derive(Debug)]
struct Envelope {
    exchange: ShortString,
    routing_key: ShortString,
    properties: BasicProperties,
    body: Bytes,
    /// Whether RabbitMQ inspects this message and may refuse it.
    risky: bool,
}

impl Envelope {
    fn new(destination: &Destination, message: &Message, frame_bytes_max: usize) -> Result<Self, PublishError> {
        let Message { properties, body } = message;
        let bytes = convert::headers_bytes(&properties.headers);
        let bytes_max = frame_bytes_max.saturating_sub(convert::frame_bytes_without_headers(properties));
        if bytes > bytes_max {
            return Err(PublishError::HeadersTooLarge { bytes, bytes_max });
        }
        let risky = properties.user_id.is_some()
            || properties.expiration.is_some()
            || ["CC", "BCC"].iter().any(|name| properties.headers.contains_key(*name))
            || body.len() > SHARED_BODY_BYTES_MAX;
        Ok(Self {
            exchange: short_string("exchange name", &destination.exchange).map_err(PublishError::Refused)?,
            routing_key: short_string("routing key", &destination.routing_key).map_err(PublishError::Refused)?,
            properties: convert::to_amqp(properties).map_err(PublishError::Inexpressible)?,
            body: body.clone(),
            risky,
        })
    }

    /// Returns whether this message was the returned one. Messages with the same exchange, routing
    /// key and content share their fate, so it does not matter which of them it was.
    fn is(&self, returned: &BasicReturnMessage) -> bool {
        self.exchange == returned.exchange
            && self.routing_key == returned.routing_key
            && arrived::from_guard(returned.data.clone()).is_some_and(|arrived| {
                self.body == arrived.message.body
                    && convert::to_amqp(&arrived.message.properties)
                        .is_ok_and(|properties| properties == self.properties)
            })
    }

    async fn send(&self, channel: &Channel) -> lapin::Result<Confirmation> {
        let (exchange, routing_key) = (self.exchange.clone(), self.routing_key.clone());
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        channel.basic_publish(exchange, routing_key, options, &self.body, self.properties.clone()).await?.await
    }
}

struct Job {
    envelope: Envelope,
    outcome: oneshot::Sender<PublishOutcome>,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Job {
    fn answer(self, outcome: PublishOutcome) {
        // The caller may have stopped waiting.
        let _ = self.outcome.send(outcome);
    }
}

enum PublishOutcome {
    Confirmed,
    Returned,
    Rejected,
    Failed(Failure),
}

enum Failure {
    /// Reply code and text.
    Refused(u16, String),
    Lost(BrokerError),
}

impl Failure {
    fn of(connection: &AmqpConnection, error: &lapin::Error) -> Self {
        refusal(error)
            .map_or_else(|| Self::Lost(connection.lost(Some(error))), |(code, text)| Self::Refused(code, text))
    }
}

type FinishedJob = (Job, lapin::Result<Confirmation>);

struct PublishTask {
    connection: Arc<AmqpConnection>,
    /// Opened on first use, and again after RabbitMQ has closed it.
    channel: Option<Channel>,
    in_flight: FuturesUnordered<BoxFuture<'static, FinishedJob>>,
    single: FuturesUnordered<BoxFuture<'static, (Job, PublishOutcome)>>,
    single_channels: Arc<Semaphore>,
    /// Returned messages whose own confirmation has not arrived yet.
    returned: Vec<BasicReturnMessage>,
}

impl PublishTask {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        const BATCH: usize = 256;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                // New messages first, so that they leave together. Their number is bounded by the
                // slots, which only confirmations free.
                biased;
                _ = jobs.recv_many(&mut batch, BATCH), if !jobs.is_closed() || !jobs.is_empty() => {
                    for job in batch.drain(..) {
                        self.dispatch(job).await;
                    }
                }
                Some(finished) = self.in_flight.next() => self.settle(finished),
                Some((job, outcome)) = self.single.next() => job.answer(outcome),
                else => return,
            }
        }
    }

    async fn dispatch(&mut self, job: Job) {
        if job.envelope.risky {
            return self.dispatch_single(job);
        }
        let channel = match self.channel.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => match open(&self.connection).await {
                Ok(channel) => channel,
                Err(failure) => return job.answer(PublishOutcome::Failed(failure)),
            },
        };
        self.channel = Some(channel.clone());
        // One task polls these futures, in the order in which they arrived. So lapin and RabbitMQ
        // give the messages the same numbers.
        self.in_flight.push(Box::pin(async move {
            let confirmation = job.envelope.send(&channel).await;
            (job, confirmation)
        }));
    }

    fn dispatch_single(&mut self, job: Job) {
        let (connection, channels) = (Arc::clone(&self.connection), Arc::clone(&self.single_channels));
        self.single.push(Box::pin(async move {
            // The semaphore is never closed, so it cannot return an error.
            let _room = channels.acquire_owned().await;
            let outcome = match open(&connection).await {
                Err(failure) => PublishOutcome::Failed(failure),
                Ok(channel) => match job.envelope.send(&channel).await {
                    // Nothing else is published on this channel, so a returned message is this one.
                    Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => PublishOutcome::Returned,
                    Ok(Confirmation::Ack(None)) => PublishOutcome::Confirmed,
                    Ok(Confirmation::Nack(None) | Confirmation::NotRequested) => PublishOutcome::Rejected,
                    Err(error) => PublishOutcome::Failed(Failure::of(&connection, &error)),
                },
            };
            (job, outcome)
        }));
    }

    /// Takes one confirmation, with all others that have arrived, and answers their callers.
    ///
    /// RabbitMQ returns a message before it confirms it, but may confirm others in between or in
    /// the same frame. lapin attaches the returned message to the first confirmation that it
    /// completes, which is completed no later than the right one. So once all completed
    /// confirmations are taken, any returned message that belongs to one of them is here too.
    fn settle(&mut self, finished: FinishedJob) {
        let mut confirmed = Vec::new();
        let mut next = Some(finished);
        while let Some((job, result)) = next {
            match result {
                Ok(Confirmation::Ack(returned)) => {
                    self.returned.extend(returned);
                    confirmed.push((job, PublishOutcome::Confirmed));
                }
                Ok(Confirmation::Nack(returned)) => {
                    self.returned.extend(returned);
                    confirmed.push((job, PublishOutcome::Rejected));
                }
                Ok(Confirmation::NotRequested) => job.answer(PublishOutcome::Rejected),
                // Only the channel was closed, by this message or another one. Published alone,
                // each gets its own answer.
                Err(_) if self.connection.is_up() => self.dispatch_single(job),
                Err(error) => {
                    let failure = Failure::of(&self.connection, &error);
                    job.answer(PublishOutcome::Failed(failure));
                }
            }
            next = self.in_flight.next().now_or_never().flatten();
        }
        for (job, outcome) in confirmed {
            let position = self.returned.iter().position(|returned| job.envelope.is(returned));
            match position {
                Some(position) => {
                    self.returned.swap_remove(position);
                    job.answer(PublishOutcome::Returned);
                }
                None => job.answer(outcome),
            }
        }
        if self.in_flight.is_empty() {
            for returned in self.returned.drain(..) {
                tracing::warn!(
                    exchange = %returned.exchange,
                    routing_key = %returned.routing_key,
                    "RabbitMQ sent back a message that was not published in this form"
                );
            }
        }
    }
}

async fn open(connection: &AmqpConnection) -> Result<Channel, Failure> {
    let channel = connection.channel().await.map_err(Failure::Lost)?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default()).await;
    confirms.map_err(|error| Failure::of(connection, &error))?;
    Ok(channel)
}
