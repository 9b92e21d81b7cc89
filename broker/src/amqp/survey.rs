//! Looking at what a host needs: whether it is there, and what about it differs.

use lapin::types::FieldTable;

use crate::amqp::desk::{Desk, arguments, kind_in_amqp};
use crate::amqp::link::Link;
use crate::amqp::{differences, judge, state_of};
use crate::{BrokerError, Finding, Object, Part, Presence, Role, Warning};

pub(super) async fn survey(link: &Link, parts: &[Part]) -> Result<Vec<Finding>, BrokerError> {
    let mut desk = Desk::new(link);
    let mut findings = Vec::new();
    for part in parts {
        let presence = match &part.object {
            Object::Exchange { name, .. } if desk.exchange_exists(name).await? => Presence::There(None),
            Object::Exchange { .. } => Presence::Missing,
            Object::Queue { name, .. } => match desk.find_queue(name).await? {
                Some(queue) => Presence::There(Some(state_of(&queue))),
                None => Presence::Missing,
            },
            Object::Binding { .. } => Presence::Unknown,
        };
        let mut finding = Finding::new(part, presence);
        if matches!(presence, Presence::There(_)) {
            (finding.warnings, finding.notes) = examine(link, part).await;
        }
        findings.push(finding);
    }
    Ok(findings)
}

/// What is to be said of a part that exists: warnings, and notes.
pub(super) async fn examine(link: &Link, part: &Part) -> (Vec<Warning>, Vec<String>) {
    let somebody_elses = part.role == Role::Source;
    match &part.object {
        Object::Exchange { name, kind } => {
            let found = differences::of_exchange(link, name, kind_in_amqp(*kind)).await;
            if somebody_elses {
                judge::source_exchange(name, *kind, &found)
            } else {
                let mut meant = FieldTable::default();
                meant.insert("type".into(), lapin::types::AMQPValue::LongString(kind.as_str().into()));
                judge::own("exchange", name, &meant, &found)
            }
        }
        Object::Queue { name, gives_up } => {
            let arguments = arguments(gives_up);
            let found = differences::of_queue(link, name, &arguments).await;
            if somebody_elses {
                judge::source_queue(name, &found)
            } else {
                judge::own("queue", name, &arguments, &found)
            }
        }
        Object::Binding { .. } => (Vec::new(), Vec::new()),
    }
}
