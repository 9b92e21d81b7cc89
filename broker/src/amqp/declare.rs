//! Making what a host needs: what exists is used as it is, what does not is made. Two hosts may declare
//! at the same time: whoever comes second finds what the first one made.

use crate::amqp::connection::AmqpConnection;
use crate::amqp::declarer::{Declarer, Made};
use crate::amqp::inspect::examine;
use crate::{BrokerError, Object, QueueNames, Role, Source, TopologyItem, Warning};

/// Makes what the source lacks. The warnings are about what was there before.
pub(super) async fn source(connection: &AmqpConnection, source: &Source) -> Result<Vec<Warning>, BrokerError> {
    let mut declarer = Declarer::new(connection);
    let (mut found, mut queue_existed) = (Vec::new(), false);
    for item in source.items() {
        // Somebody else's, for all we know.
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
            (Ok(Made::Fits), _) => {}
            (Ok(Made::Differs), _) => found.push(differs(&item)),
            // Somebody else made the queue, bound it as they saw fit, and keeps us from more.
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

/// Makes what these plugins lack.
pub(super) async fn plugins(
    connection: &AmqpConnection,
    names: &QueueNames,
    plugins: &[&str],
) -> Result<Vec<Warning>, BrokerError> {
    let mut declarer = Declarer::new(connection);
    let mut found = Vec::new();
    for item in names.plugins_items(plugins) {
        if declarer.make(&item.object).await? == Made::Differs {
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
