//! The exchanges and queues in RabbitMQ: what exists is used as it is, what does not is made.
//!
//! RabbitMQ answers a look at something absent, and a declaration that differs from what exists, by
//! closing the channel. So all of this happens on channels that can be lost. Two hosts may declare
//! at the same time: whoever comes second finds what the first one made.

mod warnings;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind as AmqpExchangeKind, Queue};

use crate::amqp::link::{Link, refusal, refused_name};
use crate::{BrokerError, ExchangeKind, QueueNames, RETRY_TIERS, Source, Warning};

const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;
/// How often a message may come back to the dead-letter queue. RabbitMQ 4 drops a message after 20
/// times where nothing else is said, and from this queue there is no other place to go.
const DEAD_DELIVERY_LIMIT: i64 = i32::MAX as i64;

/// Makes what the source lacks. The warnings are about what was there before.
pub(super) async fn source(link: &Link, source: &Source) -> Result<Vec<Warning>, BrokerError> {
    let mut desk = Desk::new(link);
    let dead = source.names.dead();
    desk.declare_queue(&dead, dead_arguments()).await?;

    let mut found = Vec::new();
    let kind = exchange_kind(source.kind);
    // The exchange without a name always exists, and nothing can be bound to it.
    let named = !source.exchange.is_empty();
    if named {
        if desk.exchange_exists(&source.exchange).await? {
            found.extend(warnings::exchange(link, &source.exchange, kind).await);
        } else {
            desk.declare_exchange(&source.exchange, kind).await?;
        }
    }
    let queue = source.names.source();
    let arguments = safe_arguments(&dead);
    let queue_existed = desk.find_queue(queue).await?.is_some();
    if queue_existed {
        found.extend(warnings::queue(link, queue, arguments).await);
    } else {
        desk.declare_queue(queue, arguments).await?;
    }
    for routing_key in source.bindings.iter().filter(|_| named) {
        match desk.bind(&source.exchange, routing_key, queue).await {
            Ok(()) => {}
            // Somebody else made the queue, bound it as they saw fit, and keeps us from more.
            Err(BrokerError::Refused(problem)) if queue_existed => found.push(Warning(format!(
                "queue {queue:?} could not be bound to exchange {:?} by {routing_key:?}: {problem}",
                source.exchange
            ))),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Makes a plugin's queue, and what leads to it.
pub(super) async fn plugin(link: &Link, names: &QueueNames, plugin: &str) -> Result<(), BrokerError> {
    let mut desk = Desk::new(link);
    let (deliver, queue) = (names.deliver(), names.plugin(plugin));
    desk.declare_exchange(&deliver, AmqpExchangeKind::Direct).await?;
    desk.declare_queue(&names.dead(), dead_arguments()).await?;
    desk.declare_queue(&queue, safe_arguments(&names.dead())).await?;
    desk.bind(&deliver, plugin, &queue).await?;
    for tier in RETRY_TIERS {
        let name = names.retry(tier);
        desk.declare_exchange(&name, AmqpExchangeKind::Fanout).await?;
        // No routing key is given for what has waited long enough: each message keeps its own,
        // which is the name of its plugin. So all plugins share a tier.
        let millis = i64::try_from(tier.delay().as_millis()).unwrap_or(i64::MAX);
        let mut arguments = at_least_once(&deliver);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(millis));
        desk.declare_queue(&name, arguments).await?;
        desk.bind(&name, "", &name).await?;
    }
    Ok(())
}

pub(super) async fn exchange_exists(link: &Link, name: &str) -> Result<bool, BrokerError> {
    Desk::new(link).exchange_exists(name).await
}

pub(super) async fn find_queue(link: &Link, name: &str) -> Result<Option<Queue>, BrokerError> {
    Desk::new(link).find_queue(name).await
}

fn exchange_kind(kind: ExchangeKind) -> AmqpExchangeKind {
    match kind {
        ExchangeKind::Topic => AmqpExchangeKind::Topic,
        ExchangeKind::Direct => AmqpExchangeKind::Direct,
        ExchangeKind::Fanout => AmqpExchangeKind::Fanout,
    }
}

/// A queue that survives the loss of a node, and hands over what it gives up with a confirmation.
/// With the default strategy a broker that is killed in the act loses messages.
fn at_least_once(dead_letter_exchange: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    for (name, value) in [
        ("x-queue-type", "quorum"),
        ("x-dead-letter-exchange", dead_letter_exchange),
        ("x-dead-letter-strategy", "at-least-once"),
        // The strategy demands it.
        ("x-overflow", "reject-publish"),
    ] {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    arguments
}

/// What the queue gives up goes to the dead-letter queue: RabbitMQ 4 gives up a message that came
/// back 20 times.
fn safe_arguments(dead: &str) -> FieldTable {
    let mut arguments = at_least_once("");
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(dead.into()));
    arguments
}

fn dead_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DEAD_DELIVERY_LIMIT));
    arguments
}

/// Where questions are asked: a channel, and a new one after a refusal.
struct Desk<'a> {
    link: &'a Link,
    channel: Option<Channel>,
}

impl<'a> Desk<'a> {
    fn new(link: &'a Link) -> Self {
        Self { link, channel: None }
    }

    async fn channel(&mut self) -> Result<&Channel, BrokerError> {
        let channel = match self.channel.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => self.link.channel().await?,
        };
        Ok(self.channel.insert(channel))
    }

    async fn exchange_exists(&mut self, name: &str) -> Result<bool, BrokerError> {
        let exchange = refused_name("exchange name", name)?;
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        // Only the name counts in a passive declaration.
        let kind = AmqpExchangeKind::Direct;
        let found = self.channel().await?.exchange_declare(exchange, kind, options, FieldTable::default()).await;
        Ok(self.unless(NOT_FOUND, found)?.is_some())
    }

    async fn find_queue(&mut self, name: &str) -> Result<Option<Queue>, BrokerError> {
        let queue = refused_name("queue name", name)?;
        let options = QueueDeclareOptions::default().passive();
        let found = self.channel().await?.queue_declare(queue, options, FieldTable::default()).await;
        self.unless(NOT_FOUND, found)
    }

    /// Makes a durable exchange. If there is one of that name already, it stays as it is.
    async fn declare_exchange(&mut self, name: &str, kind: AmqpExchangeKind) -> Result<(), BrokerError> {
        let exchange = refused_name("exchange name", name)?;
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let made = self.channel().await?.exchange_declare(exchange, kind, options, FieldTable::default()).await;
        self.unless(PRECONDITION_FAILED, made).map(drop)
    }

    /// Makes a durable queue. If there is one of that name already, it stays as it is.
    async fn declare_queue(&mut self, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
        let queue = refused_name("queue name", name)?;
        let made = self.channel().await?.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments).await;
        if self.unless(PRECONDITION_FAILED, made)?.is_some() {
            return Ok(());
        }
        // Either it exists and differs, or RabbitMQ cannot make such a queue.
        match self.find_queue(name).await? {
            Some(_) => Ok(()),
            None => Err(BrokerError::Refused(format!(
                "it cannot make the quorum queue {name:?} with at-least-once dead-lettering; \
                 that needs RabbitMQ 3.10 or newer"
            ))),
        }
    }

    async fn bind(&mut self, exchange: &str, routing_key: &str, queue: &str) -> Result<(), BrokerError> {
        let exchange = refused_name("exchange name", exchange)?;
        let routing_key = refused_name("routing key", routing_key)?;
        let queue: ShortString = refused_name("queue name", queue)?;
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let bound = self.channel().await?.queue_bind(queue, exchange, routing_key, options, arguments).await;
        bound.map_err(|error| self.link.explain(&error))
    }

    /// `None` where RabbitMQ refused with this code.
    fn unless<T>(&self, code: u16, result: lapin::Result<T>) -> Result<Option<T>, BrokerError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if refusal(&error).is_some_and(|(refused, _)| refused == code) => Ok(None),
            Err(error) => Err(self.link.explain(&error)),
        }
    }
}
