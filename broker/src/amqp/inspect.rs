//! Inspects what a host needs: whether it exists, and how it differs from the intended declaration.

use lapin::types::{AMQPValue, FieldTable};

use crate::amqp::connection::AmqpConnection;
use crate::amqp::declarer::{Declarer, arguments, kind_in_amqp};
use crate::amqp::{diagnosis, differences, state_of};
use crate::{BrokerError, Finding, Object, Presence, Role, TopologyItem, Warning};

pub(super) async fn inspect_topology(
    connection: &AmqpConnection,
    items: &[TopologyItem],
) -> Result<Vec<Finding>, BrokerError> {
    let mut declarer = Declarer::new(connection);
    let mut findings = Vec::new();
    for item in items {
        let presence = match &item.object {
            Object::Exchange { name, .. } if declarer.exchange_exists(name).await? => Presence::There(None),
            Object::Exchange { .. } => Presence::Missing,
            Object::Queue { name, .. } => match declarer.find_queue(name).await? {
                Some(queue) => Presence::There(Some(state_of(&queue))),
                None => Presence::Missing,
            },
            Object::Binding { .. } => Presence::Unknown,
        };
        let mut finding = Finding::new(item, presence);
        if matches!(presence, Presence::There(_)) {
            let Examined { warnings, notes, all } = examine(connection, item).await;
            (finding.warnings, finding.notes, finding.seen) = (warnings, notes, all);
        }
        findings.push(finding);
    }
    Ok(findings)
}

/// The result of examining an item that exists.
pub(super) struct Examined {
    pub(super) warnings: Vec<Warning>,
    pub(super) notes: Vec<String>,
    /// Whether all of its settings were visible.
    pub(super) all: bool,
}

pub(super) async fn examine(connection: &AmqpConnection, item: &TopologyItem) -> Examined {
    let somebody_elses = item.role == Role::Source;
    let (learned, (warnings, mut notes)) = match &item.object {
        Object::Exchange { name, kind } => {
            let learned = differences::of_exchange(connection, name, kind_in_amqp(*kind)).await;
            let found = &learned.differences;
            let diagnosis = if somebody_elses {
                diagnosis::source_exchange(name, *kind, found)
            } else {
                let mut meant = FieldTable::default();
                meant.insert("type".into(), AMQPValue::LongString(kind.as_str().into()));
                diagnosis::own("exchange", name, &meant, found)
            };
            (learned, diagnosis)
        }
        Object::Queue { name, gives_up } => {
            let arguments = arguments(gives_up);
            let learned = differences::of_queue(connection, name, &arguments).await;
            let found = &learned.differences;
            let diagnosis = if !somebody_elses {
                diagnosis::own("queue", name, &arguments, found)
            } else if learned.all || !found.is_empty() {
                diagnosis::source_queue(name, found)
            } else {
                (Vec::new(), Vec::new())
            };
            (learned, diagnosis)
        }
        Object::Binding { .. } => return Examined { warnings: Vec::new(), notes: Vec::new(), all: false },
    };
    if !learned.all {
        notes.push("whether it is as it should be cannot be seen, by a user that may not configure it".to_owned());
    }
    Examined { warnings, notes, all: learned.all }
}
