//! Making what a host needs: what exists is used as it is, what does not is made. Two hosts may declare
//! at the same time: whoever comes second finds what the first one made.

use crate::amqp::desk::{Desk, Made};
use crate::amqp::link::Link;
use crate::amqp::survey::examine;
use crate::{BrokerError, Object, Part, QueueNames, Role, Source, Warning};

/// Makes what the source lacks. The warnings are about what was there before.
pub(super) async fn source(link: &Link, source: &Source) -> Result<Vec<Warning>, BrokerError> {
    let mut desk = Desk::new(link);
    let (mut found, mut queue_existed) = (Vec::new(), false);
    for part in source.parts() {
        // Somebody else's, for all we know.
        let exists = part.role == Role::Source
            && match &part.object {
                Object::Exchange { name, .. } => desk.exchange_exists(name).await?,
                Object::Queue { name, .. } => {
                    queue_existed = desk.find_queue(name).await?.is_some();
                    queue_existed
                }
                Object::Binding { .. } => false,
            };
        if exists {
            found.extend(examine(link, &part).await.warnings);
            continue;
        }
        match (desk.make(&part.object).await, &part.object) {
            (Ok(Made::Fits), _) => {}
            (Ok(Made::Differs), _) => found.push(differs(&part)),
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
pub(super) async fn plugins(link: &Link, names: &QueueNames, plugins: &[&str]) -> Result<Vec<Warning>, BrokerError> {
    let mut desk = Desk::new(link);
    let mut found = Vec::new();
    for part in names.plugins_parts(plugins) {
        if desk.make(&part.object).await? == Made::Differs {
            found.push(differs(&part));
        }
    }
    Ok(found)
}

fn differs(part: &Part) -> Warning {
    let (what, name) = match &part.object {
        Object::Exchange { name, .. } => ("exchange", name),
        Object::Queue { name, .. } => ("queue", name),
        Object::Binding { exchange, .. } => ("binding of exchange", exchange),
    };
    Warning(format!(
        "{what} {name:?} is not as this host makes it: `notify-host topology check` says what differs; it is used as it is"
    ))
}
