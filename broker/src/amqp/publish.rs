//! Publishing with confirmations.
//!
//! One task, the lane, owns the channel that messages are published on. RabbitMQ answers a bad
//! publish by closing its channel, and with it everything that is not confirmed yet. So the lane
//! keeps what is likely to be refused off that channel; and what was in flight when it closed all
//! the same is published again, each message on a channel of its own, so that only the bad one
//! fails. A repetition is possible then, a loss is not.
//!
//! The lane is also needed because lapin hands a returned message to whichever confirmation comes
//! next, which need not be its own: see [`Lane::settle`].

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
use crate::turnstile::Turnstile;
use crate::{BrokerError, Message, PublishError, RetryTier, Target};

/// Messages that are published and not confirmed; beyond that callers wait.
const UNCONFIRMED_MAX: usize = 4096;
/// Their bodies together; a larger one waits until it is alone.
const UNCONFIRMED_BYTES_MAX: u32 = 64 << 20;
/// A body beyond this is published on a channel of its own, because RabbitMQ may find it too large.
const SHARED_BODY_BYTES_MAX: usize = 1 << 20;
/// Channels for one message each, at a time.
const SINGLE_CHANNELS_MAX: usize = 8;
const NOT_FOUND: u16 = 404;
/// A frame's own bytes, and the properties that are not headers: flags and 13 of at most 256 bytes.
const FRAME_BYTES_RESERVED: usize = 4096;

#[derive(Debug)]
pub(super) struct Publisher {
    connection: Arc<AmqpConnection>,
    jobs: mpsc::Sender<Job>,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Exchanges that are known to exist, so that a missing one closes no channel in use.
    exchanges: Mutex<HashSet<String>>,
    /// None overtakes one whose exchange is still looked for. It spares looks, too: each that finds
    /// nothing uses up a channel.
    turnstile: Turnstile,
    _lane: AbortOnDropHandle<()>,
}

impl Publisher {
    pub(super) fn start(connection: Arc<AmqpConnection>) -> Self {
        let (jobs, receiver) = mpsc::channel(UNCONFIRMED_MAX);
        let lane = Lane {
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
            _lane: AbortOnDropHandle::new(tokio::spawn(lane.run(receiver))),
        }
    }

    pub(super) fn headers_bytes_max(&self) -> usize {
        self.connection.frame_bytes_max().saturating_sub(FRAME_BYTES_RESERVED)
    }

    pub(super) async fn publish(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        tokio::select! {
            biased;
            published = self.publish_and_wait(target, message) => published,
            // What is begun on a connection that is just breaking, a channel for one, lapin may wait for for ever.
            () = self.connection.gone() => Err(self.connection.lost(None).into()),
        }
    }

    async fn publish_and_wait(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        let place = Place::of(target);
        let envelope = Envelope::new(&place, message, self.connection.frame_bytes_max())?;
        let (verdict, answer) = oneshot::channel();
        self.turnstile.pass(self.enter(&place, envelope, verdict)).await?;
        match answer.await.map_err(|_| self.connection.lost(None))? {
            Verdict::Confirmed => Ok(()),
            Verdict::Returned => Err(place.unroutable()),
            Verdict::Rejected => Err(PublishError::Refused(
                "it could not be put into a queue, which may be full or without a leader".to_owned(),
            )),
            Verdict::Failed(Failure::Refused(NOT_FOUND, _)) => {
                self.exchanges().remove(&place.exchange);
                Err(PublishError::NotFound { what: "exchange", name: place.exchange })
            }
            Verdict::Failed(Failure::Refused(_, text)) => Err(PublishError::Refused(text)),
            Verdict::Failed(Failure::Lost(error)) => Err(PublishError::Unconfirmed(error)),
        }
    }

    /// Hands the message to the lane.
    async fn enter(
        &self,
        place: &Place,
        envelope: Envelope,
        verdict: oneshot::Sender<Verdict>,
    ) -> Result<(), PublishError> {
        self.look_for(place).await?;
        let bytes = u32::try_from(envelope.body.len()).unwrap_or(u32::MAX).min(UNCONFIRMED_BYTES_MAX);
        // The semaphores are never closed, so an error cannot come.
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| self.connection.lost(None))?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.map_err(|_| self.connection.lost(None))?;
        let job = Job { envelope, verdict, _room: (slot, bytes) };
        self.jobs.send(job).await.map_err(|_| self.connection.lost(None).into())
    }

    /// Fails if there is no such exchange.
    async fn look_for(&self, place: &Place) -> Result<(), PublishError> {
        if place.exchange.is_empty() || self.exchanges().contains(&place.exchange) {
            return Ok(());
        }
        if !Declarer::new(&self.connection).exchange_exists(&place.exchange).await? {
            return Err(PublishError::NotFound { what: "exchange", name: place.exchange.clone() });
        }
        self.exchanges().insert(place.exchange.clone());
        Ok(())
    }

    fn exchanges(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where to, in AMQP's terms.
struct Place {
    exchange: String,
    routing_key: String,
}

impl Place {
    fn of(target: Target<'_>) -> Self {
        let (exchange, routing_key) = match target {
            Target::Exchange { exchange, routing_key } => (exchange.to_owned(), routing_key),
            // The exchange without a name routes to every queue by its name.
            Target::Queue(queue) => (String::new(), queue),
            // The tier's exchange takes any key, and the key is what leads on to the plugin's queue.
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

/// A message as it is sent.
#[derive(Debug)]
struct Envelope {
    exchange: ShortString,
    routing_key: ShortString,
    properties: BasicProperties,
    body: Bytes,
    /// RabbitMQ looks into it and may refuse it.
    risky: bool,
}

impl Envelope {
    fn new(place: &Place, message: &Message, frame_bytes_max: usize) -> Result<Self, PublishError> {
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
            exchange: short_string("exchange name", &place.exchange).map_err(PublishError::Refused)?,
            routing_key: short_string("routing key", &place.routing_key).map_err(PublishError::Refused)?,
            properties: convert::to_amqp(properties).map_err(PublishError::Inexpressible)?,
            body: body.clone(),
            risky,
        })
    }

    /// Whether this came back. What goes by the same route to the same place with the same content
    /// shares its fate, so that it need not be told apart.
    fn is(&self, returned: &BasicReturnMessage) -> bool {
        self.exchange == returned.exchange
            && self.routing_key == returned.routing_key
            && convert::from_guard(returned.data.clone()).is_some_and(|arrived| {
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
    verdict: oneshot::Sender<Verdict>,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Job {
    fn answer(self, verdict: Verdict) {
        // Whoever asked may have given up waiting.
        let _ = self.verdict.send(verdict);
    }
}

enum Verdict {
    Confirmed,
    Returned,
    Rejected,
    Failed(Failure),
}

enum Failure {
    /// The code and the text.
    Refused(u16, String),
    Lost(BrokerError),
}

impl Failure {
    fn of(connection: &AmqpConnection, error: &lapin::Error) -> Self {
        refusal(error)
            .map_or_else(|| Self::Lost(connection.lost(Some(error))), |(code, text)| Self::Refused(code, text))
    }
}

type Landed = (Job, lapin::Result<Confirmation>);

struct Lane {
    connection: Arc<AmqpConnection>,
    /// Opened when first needed, and again after RabbitMQ closed it.
    channel: Option<Channel>,
    in_flight: FuturesUnordered<BoxFuture<'static, Landed>>,
    single: FuturesUnordered<BoxFuture<'static, (Job, Verdict)>>,
    single_channels: Arc<Semaphore>,
    /// Came back, and their own confirmation did not come yet.
    returned: Vec<BasicReturnMessage>,
}

impl Lane {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        const BATCH: usize = 256;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                // New messages first, so that they leave together. Their number is bounded by
                // the slots, which only confirmations free.
                biased;
                _ = jobs.recv_many(&mut batch, BATCH), if !jobs.is_closed() || !jobs.is_empty() => {
                    for job in batch.drain(..) {
                        self.dispatch(job).await;
                    }
                }
                Some(landed) = self.in_flight.next() => self.settle(landed),
                Some((job, verdict)) = self.single.next() => job.answer(verdict),
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
                Err(failure) => return job.answer(Verdict::Failed(failure)),
            },
        };
        self.channel = Some(channel.clone());
        // One task polls these, in the order they came: so the numbers that lapin and RabbitMQ give
        // to messages agree.
        self.in_flight.push(Box::pin(async move {
            let confirmation = job.envelope.send(&channel).await;
            (job, confirmation)
        }));
    }

    fn dispatch_single(&mut self, job: Job) {
        let (connection, channels) = (Arc::clone(&self.connection), Arc::clone(&self.single_channels));
        self.single.push(Box::pin(async move {
            // Never closed, so an error cannot come.
            let _room = channels.acquire_owned().await;
            let verdict = match open(&connection).await {
                Err(failure) => Verdict::Failed(failure),
                Ok(channel) => match job.envelope.send(&channel).await {
                    // Nothing else is published there, so what came back is this message.
                    Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => Verdict::Returned,
                    Ok(Confirmation::Ack(None)) => Verdict::Confirmed,
                    Ok(Confirmation::Nack(None) | Confirmation::NotRequested) => Verdict::Rejected,
                    Err(error) => Verdict::Failed(Failure::of(&connection, &error)),
                },
            };
            (job, verdict)
        }));
    }

    /// Takes one confirmation, with all others that are there, and says what became of their
    /// messages.
    ///
    /// RabbitMQ sends a message back before it confirms it, but it may confirm others in between or
    /// in the same frame, and lapin gives what came back to the first confirmation that it completes.
    /// That one is completed no later than the right one: so once all that are complete are taken,
    /// whatever belongs to one of them is here.
    fn settle(&mut self, landed: Landed) {
        let mut confirmed = Vec::new();
        let mut next = Some(landed);
        while let Some((job, result)) = next {
            match result {
                Ok(Confirmation::Ack(returned)) => {
                    self.returned.extend(returned);
                    confirmed.push((job, Verdict::Confirmed));
                }
                Ok(Confirmation::Nack(returned)) => {
                    self.returned.extend(returned);
                    confirmed.push((job, Verdict::Rejected));
                }
                Ok(Confirmation::NotRequested) => job.answer(Verdict::Rejected),
                // Only the channel was closed, by another message or by this one: alone it will tell.
                Err(_) if self.connection.is_up() => self.dispatch_single(job),
                Err(error) => {
                    let failure = Failure::of(&self.connection, &error);
                    job.answer(Verdict::Failed(failure));
                }
            }
            next = self.in_flight.next().now_or_never().flatten();
        }
        for (job, verdict) in confirmed {
            let position = self.returned.iter().position(|returned| job.envelope.is(returned));
            match position {
                Some(position) => {
                    self.returned.swap_remove(position);
                    job.answer(Verdict::Returned);
                }
                None => job.answer(verdict),
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
