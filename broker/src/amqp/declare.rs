//! Declares what a host needs. Existing objects are used unchanged, missing ones are created. Two
//! hosts may declare at the same time: the second finds what the first has created.

use crate::amqp::connection::AmqpConnection;
use crate::amqp::declarer::{DeclareOutcome, Declarer};
use crate::amqp::inspect::examine;
use crate::{BrokerError, Object, QueueNames, Role, Source, TopologyItem, Warning};

/// Declares what the source lacks. The warnings are about objects that existed before.
pub(super) async fn source(connection: &AmqpConnection, source: &Source) -> Result<Vec<Warning>, BrokerError> {
    let mut declarer = Declarer::new(connection);
    let (mut found, mut queue_existed) = (Vec::new(), false);
    for item in source.items() {
        // The object may belong to someone else.
        let exists = item.role == Role::Source
            && match &item.object {
                Object::Exchange { name, .. } => declarer.exchange_exists(name).await?,
                Object::Queue { name, .. } => {
                    queue_existed = declarer.find_queue(name).await?.is_some();
                    queue_existed
                }
                Object::Binding { .. } => false,
            };
        if exists {
            found.extend(examine(connection, &item).await.warnings);
            continue;
        }
        match (declarer.make(&item.object).await, &item.object) {
            (Ok(DeclareOutcome::Fits), _) => {}
            (Ok(DeclareOutcome::Differs), _) => found.push(differs(&item)),
            // Someone else created the queue, bound it as they saw fit, and does not allow more bindings.
            (Err(BrokerError::Refused(problem)), Object::Binding { exchange, routing_key, queue }) if queue_existed => {
                found.push(Warning(format!(
                    "queue {queue:?} could not be bound to exchange {exchange:?} by {routing_key:?}: {problem}"
                )));
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(found)
}

/// Declares what these plugins lack.
pub(super) async fn plugins(
    connection: &AmqpConnection,
    names: &QueueNames,
    plugins: &[&str],
) -> Result<Vec<Warning>, BrokerError> {
    let mut declarer = Declarer::new(connection);
    let mut found = Vec::new();
    for item in names.plugins_items(plugins) {
        if declarer.make(&item.object).await? == DeclareOutcome::Differs {
            found.push(differs(&item));
        }
    }
    Ok(found)
}

fn differs(item: &TopologyItem) -> Warning {
    let (what, name) = match &item.object {
        Object::Exchange { name, .. } => ("exchange", name),
        Object::Queue { name, .. } => ("queue", name),
        Object::Binding { exchange, .. } => ("binding of exchange", exchange),
    };
    Warning(format!(
        "{what} {name:?} is not as this host makes it: `notify-host topology check` says what differs; it is used as it is"
    ))
}
