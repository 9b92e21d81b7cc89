//! The desk is where questions are asked and exchanges and queues are made.
//!
//! RabbitMQ answers a look at something absent, and a declaration that differs from what exists or
//! is not allowed, by closing the channel. So all of this happens on channels that can be lost.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind as AmqpExchangeKind, Queue};

use crate::amqp::connection::{AmqpConnection, refusal, refused_name};
use crate::{BrokerError, ExchangeKind, GivesUp, Object};

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;
/// How often a message may come back to a queue that never gives up. RabbitMQ 4 drops a message after
/// 20 times where nothing else is said, and from there is no other place to go.
const NEVER_LIMIT: i64 = i32::MAX as i64;

/// A channel, and a new one after a refusal.
pub(super) struct Declarer<'a> {
    connection: &'a AmqpConnection,
    channel: Option<Channel>,
    /// This user was refused once: then it is cheaper to look first.
    refused: bool,
}

/// What making a part came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// It is there, and as it should be as far as can be seen.
    Fits,
    /// It was there, and is otherwise.
    Differs,
}

impl<'a> Declarer<'a> {
    pub(super) fn new(connection: &'a AmqpConnection) -> Self {
        Self { connection, channel: None, refused: false }
    }

    /// Makes it, durable. If there is one of that name already, it stays as it is.
    pub(super) async fn make(&mut self, object: &Object) -> Result<Made, BrokerError> {
        match object {
            Object::Exchange { name, kind } => self.make_exchange(name, *kind).await,
            Object::Queue { name, gives_up } => self.make_queue(name, gives_up).await,
            Object::Binding { exchange, routing_key, queue } => {
                self.bind(exchange, routing_key, queue).await.map(|()| Made::Fits)
            }
        }
    }

    pub(super) async fn exchange_exists(&mut self, name: &str) -> Result<bool, BrokerError> {
        let exchange = refused_name("exchange name", name)?;
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        // Only the name counts in a passive declaration.
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

    async fn make_exchange(&mut self, name: &str, kind: ExchangeKind) -> Result<Made, BrokerError> {
        if self.refused && self.exchange_exists(name).await? {
            return Ok(Made::Fits);
        }
        let exchange = refused_name("exchange name", name)?;
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let kind = kind_in_amqp(kind);
        let made = self.channel().await?.exchange_declare(exchange, kind, options, FieldTable::default()).await;
        let Err(error) = made else { return Ok(Made::Fits) };
        match refusal(&error) {
            Some((PRECONDITION_FAILED, _)) => Ok(Made::Differs),
            Some((ACCESS_REFUSED, text)) => {
                self.refused = true;
                if self.exchange_exists(name).await? {
                    Ok(Made::Fits)
                } else {
                    Err(may_not_make("exchange", name, &text))
                }
            }
            _ => Err(self.connection.explain(&error)),
        }
    }

    async fn make_queue(&mut self, name: &str, gives_up: &GivesUp) -> Result<Made, BrokerError> {
        if self.refused && self.find_queue(name).await?.is_some() {
            return Ok(Made::Fits);
        }
        let queue = refused_name("queue name", name)?;
        let (options, arguments) = (QueueDeclareOptions::durable(), arguments(gives_up));
        let made = self.channel().await?.queue_declare(queue, options, arguments).await;
        let Err(error) = made else { return Ok(Made::Fits) };
        match refusal(&error) {
            // Either it exists and differs, or RabbitMQ cannot make such a queue.
            Some((PRECONDITION_FAILED, text)) => {
                if self.find_queue(name).await?.is_some() {
                    return Ok(Made::Differs);
                }
                let hint =
                    if text.contains("invalid arg") { "; such a queue needs RabbitMQ 3.10 or newer" } else { "" };
                Err(BrokerError::Refused(format!("it cannot make the quorum queue {name:?} ({text}){hint}")))
            }
            Some((ACCESS_REFUSED, text)) => {
                self.refused = true;
                match self.find_queue(name).await? {
                    Some(_) => Ok(Made::Fits),
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
            // It says so, too, of a queue that it has and cannot reach, as its node is down.
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

/// A user that may read and write and not configure is good practice, once everything is there.
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

/// The arguments of a queue that survives the loss of a node, and that hands over what it gives up
/// with a confirmation. With the default strategy a broker that is killed in the act loses messages.
pub(super) fn arguments(gives_up: &GivesUp) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let number = |number: i64| AMQPValue::LongLongInt(number);
    let at_least_once = |exchange: &str| {
        [
            ("x-dead-letter-exchange", text(exchange)),
            ("x-dead-letter-strategy", text("at-least-once")),
            // The strategy demands it.
            ("x-overflow", text("reject-publish")),
        ]
    };
    let mut all = vec![("x-queue-type", text("quorum"))];
    match gives_up {
        GivesUp::Never => all.push(("x-delivery-limit", number(NEVER_LIMIT))),
        // The exchange without a name routes to every queue by its name.
        GivesUp::To(queue) => {
            all.extend(at_least_once(""));
            all.push(("x-dead-letter-routing-key", text(queue)));
        }
        // No routing key: each message keeps its own, which is the name of its plugin. So all plugins
        // share a tier.
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
