//! How an existing exchange or queue differs from the intended declaration.
//!
//! AMQP cannot list the settings of an object. But RabbitMQ refuses a declaration that differs from
//! an existing object, and names one difference. So this module declares, learns one difference
//! from the refusal, declares again with that difference, and repeats until RabbitMQ agrees.
//!
//! The last declaration changes nothing, unless the queue was deleted in the meantime: then it is
//! created again. The result is for reporting only. Settings from a policy are not visible.

use std::collections::BTreeMap;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::BrokerError;
use crate::amqp::connection::{AmqpConnection, refusal, refused_name};

/// Maximum number of differences to learn; more than an object has properties and arguments.
const DIFFERENCES_MAX: usize = 16;

/// The actual value of each property or argument that differs; `None` if it is not set.
pub(super) type Differences = BTreeMap<String, Option<String>>;

/// Returns whether a property differs and has this value.
pub(super) fn is(differences: &Differences, property: &str, value: &str) -> bool {
    differences.get(property).and_then(Option::as_deref) == Some(value)
}

/// The differences found so far.
#[derive(Debug, Default)]
pub(super) struct Learned {
    pub(super) differences: Differences,
    /// Whether RabbitMQ agreed in the end. It reveals nothing to a user without configure permission.
    pub(super) all: bool,
}

/// Finds how an exchange differs. The exchange must exist.
pub(super) async fn of_exchange(connection: &AmqpConnection, name: &str, kind: ExchangeKind) -> Learned {
    let mut learned = Learned::default();
    while learned.go_on(declare_exchange(connection, name, &kind, &learned.differences).await) {}
    learned
}

/// Finds how a queue differs. The queue must exist.
pub(super) async fn of_queue(connection: &AmqpConnection, name: &str, arguments: &FieldTable) -> Learned {
    let mut learned = Learned::default();
    while learned.go_on(declare_queue(connection, name, arguments, &learned.differences).await) {}
    learned
}

impl Learned {
    /// Records the result of one declaration. Returns whether there may be more to learn.
    fn go_on(&mut self, declared: Result<(), Refused>) -> bool {
        match declared {
            Ok(()) => self.all = true,
            Err(Refused(None)) => {}
            Err(Refused(Some((property, value)))) => {
                let is_new = self.differences.insert(property, value).is_none();
                return is_new && self.differences.len() < DIFFERENCES_MAX;
            }
        }
        false
    }
}

/// A refused declaration, with the difference that RabbitMQ reported, if any.
struct Refused(Option<(String, Option<String>)>);

impl From<BrokerError> for Refused {
    fn from(_: BrokerError) -> Self {
        Self(None)
    }
}

impl From<lapin::Error> for Refused {
    fn from(error: lapin::Error) -> Self {
        Self(refusal(&error).and_then(|(_, text)| difference(&text)))
    }
}

async fn declare_exchange(
    connection: &AmqpConnection,
    name: &str,
    kind: &ExchangeKind,
    differences: &Differences,
) -> Result<(), Refused> {
    let kind = match differences.get("type") {
        Some(Some(kind)) => ExchangeKind::Custom(kind.clone()),
        _ => kind.clone(),
    };
    let options = ExchangeDeclareOptions {
        durable: !is(differences, "durable", "false"),
        auto_delete: is(differences, "auto_delete", "true"),
        internal: is(differences, "internal", "true"),
        ..ExchangeDeclareOptions::default()
    };
    let channel = connection.channel().await?;
    let name = refused_name("exchange name", name)?;
    Ok(channel.exchange_declare(name, kind, options, FieldTable::default()).await?)
}

async fn declare_queue(
    connection: &AmqpConnection,
    name: &str,
    arguments: &FieldTable,
    differences: &Differences,
) -> Result<(), Refused> {
    let transient = is(differences, "durable", "false") || is(differences, "auto_delete", "true");
    let mut known = FieldTable::default();
    for (argument, value) in arguments {
        // Only a durable queue can be a quorum queue, and only quorum queues have these arguments.
        if !transient && !differences.contains_key(argument.as_str()) {
            known.insert(argument.clone(), value.clone());
        }
    }
    for (argument, value) in differences.iter().filter(|(name, _)| name.starts_with("x-")) {
        if let Some(value) = value {
            let value = match value.parse() {
                Ok(number) => AMQPValue::LongLongInt(number),
                Err(_) => AMQPValue::LongString(value.as_str().into()),
            };
            known.insert(argument.as_str().into(), value);
        }
    }
    let options = QueueDeclareOptions {
        durable: !is(differences, "durable", "false"),
        auto_delete: is(differences, "auto_delete", "true"),
        ..QueueDeclareOptions::default()
    };
    let channel = connection.channel().await?;
    let name = refused_name("queue name", name)?;
    channel.queue_declare(name, options, known).await?;
    Ok(())
}

/// Parses one difference from RabbitMQ's message: the name, and the actual value.
fn difference(text: &str) -> Option<(String, Option<String>)> {
    let quoted = |text: &str| text.split('\'').nth(1).map(str::to_owned);
    if let Some((_, rest)) = text.split_once("inequivalent arg ") {
        let (_, current) = rest.split_once("but current is ")?;
        return Some((quoted(rest)?, quoted(current)));
    }
    // An argument that this queue type does not support.
    let (_, rest) = text.split_once("invalid arg ")?;
    Some((quoted(rest)?, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_read_out_of_refusals() {
        for (text, expected) in [
            (
                "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'orders' in vhost '/': \
                 received 'true' but current is 'false'",
                Some(("durable", Some("false"))),
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'it's' in vhost '/': \
                 received none but current is the value '1000' of type 'signedint'",
                Some(("x-message-ttl", Some("1000"))),
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': \
                 received the value 'quorum' of type 'longstr' but current is none",
                Some(("x-queue-type", None)),
            ),
            (
                "PRECONDITION_FAILED - invalid arg 'x-dead-letter-strategy' for queue 'q' in vhost '/' of queue type \
                 rabbit_classic_queue",
                Some(("x-dead-letter-strategy", None)),
            ),
            ("ACCESS_REFUSED - configure access to queue 'q' in vhost '/' refused for user 'u'", None),
        ] {
            let expected = expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
            assert_eq!(difference(text), expected, "{text}");
        }
    }
}
