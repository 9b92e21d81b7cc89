//! Declares exchanges and queues, and looks them up.
//!
//! RabbitMQ closes the channel when a lookup finds nothing, and when a declaration is not allowed
//! or differs from an existing object. So all of this happens on channels that can be lost.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind as AmqpExchangeKind, Queue};

use crate::amqp::connection::{AmqpConnection, refusal, refused_name};
use crate::{BrokerError, ExchangeKind, GivesUp, Object};

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;
/// Delivery limit of a queue that never gives up a message. RabbitMQ 4 drops a message after 20
/// redeliveries unless a limit is set, and this queue has nowhere to dead-letter to.
const NEVER_LIMIT: i64 = i32::MAX as i64;

/// A channel that is replaced after a refusal.
pub(super) struct Declarer<'a> {
    connection: &'a AmqpConnection,
    channel: Option<Channel>,
    /// Whether this user was refused once; from then on, looking first is cheaper.
    refused: bool,
}

/// The result of declaring an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeclareOutcome {
    /// It exists, and matches the declaration as far as is visible.
    Fits,
    /// It existed before, with other settings.
    Differs,
}

impl<'a> Declarer<'a> {
    pub(super) fn new(connection: &'a AmqpConnection) -> Self {
        Self { connection, channel: None, refused: false }
    }

    /// Declares the object as durable. An existing one of the same name stays unchanged.
    pub(super) async fn make(&mut self, object: &Object) -> Result<DeclareOutcome, BrokerError> {
        match object {
            Object::Exchange { name, kind } => self.make_exchange(name, *kind).await,
            Object::Queue { name, gives_up } => self.make_queue(name, gives_up).await,
            Object::Binding { exchange, routing_key, queue } => {
                self.bind(exchange, routing_key, queue).await.map(|()| DeclareOutcome::Fits)
            }
        }
    }

    pub(super) async fn exchange_exists(&mut self, name: &str) -> Result<bool, BrokerError> {
        let exchange = refused_name("exchange name", name)?;
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        // A passive declaration checks only the name.
        let kind = AmqpExchangeKind::Direct;
        let found = self.channel().await?.exchange_declare(exchange, kind, options, FieldTable::default()).await;
        Ok(self.unless_absent(found)?.is_some())
    }

    pub(super) async fn find_queue(&mut self, name: &str) -> Result<Option<Queue>, BrokerError> {
        let queue = refused_name("queue name", name)?;
        let options = QueueDeclareOptions::default().passive();
        let found = self.channel().await?.queue_declare(queue, options, FieldTable::default()).await;
        self.unless_absent(found)
    }

    async fn channel(&mut self) -> Result<&Channel, BrokerError> {
        let channel = match self.channel.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => self.connection.channel().await?,
        };
        Ok(self.channel.insert(channel))
    }

    async fn make_exchange(&mut self, name: &str, kind: ExchangeKind) -> Result<DeclareOutcome, BrokerError> {
        if self.refused && self.exchange_exists(name).await? {
            return Ok(DeclareOutcome::Fits);
        }
        let exchange = refused_name("exchange name", name)?;
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let kind = kind_in_amqp(kind);
        let made = self.channel().await?.exchange_declare(exchange, kind, options, FieldTable::default()).await;
        let Err(error) = made else { return Ok(DeclareOutcome::Fits) };
        match refusal(&error) {
            Some((PRECONDITION_FAILED, _)) => Ok(DeclareOutcome::Differs),
            Some((ACCESS_REFUSED, text)) => {
                self.refused = true;
                if self.exchange_exists(name).await? {
                    Ok(DeclareOutcome::Fits)
                } else {
                    Err(may_not_make("exchange", name, &text))
                }
            }
            _ => Err(self.connection.explain(&error)),
        }
    }

    async fn make_queue(&mut self, name: &str, gives_up: &GivesUp) -> Result<DeclareOutcome, BrokerError> {
        if self.refused && self.find_queue(name).await?.is_some() {
            return Ok(DeclareOutcome::Fits);
        }
        let queue = refused_name("queue name", name)?;
        let (options, arguments) = (QueueDeclareOptions::durable(), arguments(gives_up));
        let made = self.channel().await?.queue_declare(queue, options, arguments).await;
        let Err(error) = made else { return Ok(DeclareOutcome::Fits) };
        match refusal(&error) {
            // Either the queue exists and differs, or RabbitMQ cannot create such a queue.
            Some((PRECONDITION_FAILED, text)) => {
                if self.find_queue(name).await?.is_some() {
                    return Ok(DeclareOutcome::Differs);
                }
                let hint =
                    if text.contains("invalid arg") { "; such a queue needs RabbitMQ 3.10 or newer" } else { "" };
                Err(BrokerError::Refused(format!("it cannot make the quorum queue {name:?} ({text}){hint}")))
            }
            Some((ACCESS_REFUSED, text)) => {
                self.refused = true;
                match self.find_queue(name).await? {
                    Some(_) => Ok(DeclareOutcome::Fits),
                    None => Err(may_not_make("queue", name, &text)),
                }
            }
            _ => Err(self.connection.explain(&error)),
        }
    }

    async fn bind(&mut self, exchange: &str, routing_key: &str, queue: &str) -> Result<(), BrokerError> {
        let exchange = refused_name("exchange name", exchange)?;
        let routing_key = refused_name("routing key", routing_key)?;
        let queue: ShortString = refused_name("queue name", queue)?;
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let bound = self.channel().await?.queue_bind(queue, exchange, routing_key, options, arguments).await;
        bound.map_err(|error| self.connection.explain(&error))
    }

    fn unless_absent<T>(&self, result: lapin::Result<T>) -> Result<Option<T>, BrokerError> {
        match result {
            Ok(value) => Ok(Some(value)),
            // RabbitMQ also answers 404 for a queue that exists but is unreachable because its node
            // is down. Only these texts mean that the object does not exist.
            Err(error)
                if refusal(&error).is_some_and(|(code, text)| {
                    code == NOT_FOUND && (text.contains("no queue '") || text.contains("no exchange '"))
                }) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.connection.explain(&error)),
        }
    }
}

/// The error for a missing object that this user may not create. Withholding the configure
/// permission is good practice once everything exists.
fn may_not_make(what: &str, name: &str, text: &str) -> BrokerError {
    BrokerError::Refused(format!(
        "there is no {what} {name:?}, and this user may not make it ({text}): run `notify-host topology apply` as a \
         user that may configure, read and write"
    ))
}

pub(super) fn kind_in_amqp(kind: ExchangeKind) -> AmqpExchangeKind {
    match kind {
        ExchangeKind::Topic => AmqpExchangeKind::Topic,
        ExchangeKind::Direct => AmqpExchangeKind::Direct,
        ExchangeKind::Fanout => AmqpExchangeKind::Fanout,
    }
}

/// Returns the arguments of a queue that survives the loss of a node and dead-letters with confirmation.
/// With the default strategy, a broker that is killed while dead-lettering loses messages.
pub(super) fn arguments(gives_up: &GivesUp) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let number = |number: i64| AMQPValue::LongLongInt(number);
    let at_least_once = |exchange: &str| {
        [
            ("x-dead-letter-exchange", text(exchange)),
            ("x-dead-letter-strategy", text("at-least-once")),
            // Required by the strategy.
            ("x-overflow", text("reject-publish")),
        ]
    };
    let mut all = vec![("x-queue-type", text("quorum"))];
    match gives_up {
        GivesUp::Never => all.push(("x-delivery-limit", number(NEVER_LIMIT))),
        // The default exchange routes to every queue by its name.
        GivesUp::To(queue) => {
            all.extend(at_least_once(""));
            all.push(("x-dead-letter-routing-key", text(queue)));
        }
        // No routing key: each message keeps its own, which is the name of its plugin. So all
        // plugins share a tier.
        GivesUp::After(wait, exchange) => {
            all.extend(at_least_once(exchange));
            all.push(("x-message-ttl", number(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))));
        }
    }
    let mut table = FieldTable::default();
    for (name, value) in all {
        table.insert(name.into(), value);
    }
    table
}
