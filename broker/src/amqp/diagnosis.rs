//! Explains to an operator what differences in an exchange or a queue mean. Pure functions, no I/O.

use lapin::types::{AMQPValue, FieldTable};

use crate::amqp::differences::{Differences, is};
use crate::topology_item::kind_note;
use crate::{ExchangeKind, Warning};

/// Warnings and notes.
type Diagnosis = (Vec<Warning>, Vec<String>);

/// Diagnoses the exchange that publishers publish to.
pub(super) fn source_exchange(name: &str, kind: ExchangeKind, found: &Differences) -> Diagnosis {
    let (mut warnings, mut notes) = (Vec::new(), Vec::new());
    if is(found, "durable", "false") {
        warnings.push(format!(
            "exchange {name:?} is not durable: a restart of RabbitMQ removes it, and what is published then is lost; \
             it is used as it is"
        ));
    }
    if is(found, "auto_delete", "true") {
        warnings.push(format!("exchange {name:?} is auto-delete: it goes with its last binding; it is used as it is"));
    }
    if is(found, "internal", "true") {
        warnings.push(format!("exchange {name:?} is internal: nobody can publish to it"));
    }
    if let Some(Some(other)) = found.get("type") {
        notes.push(kind_note(name, other, kind));
    }
    (warnings.into_iter().map(Warning).collect(), notes)
}

/// Diagnoses the queue that events are consumed from.
pub(super) fn source_queue(name: &str, found: &Differences) -> Diagnosis {
    let (mut warnings, mut notes) = (Vec::new(), Vec::new());
    let transient = is(found, "durable", "false");
    if transient {
        warnings.push(format!(
            "queue {name:?} is not durable: a restart of RabbitMQ removes it with all its messages; \
             it is used as it is (delete it when it is empty, and the host makes a durable one)"
        ));
    }
    if is(found, "auto_delete", "true") {
        warnings.push(format!(
            "queue {name:?} is auto-delete: RabbitMQ removes it with all its messages when its last consumer goes"
        ));
    }
    for (argument, loss) in [
        ("x-expires", "RabbitMQ removes it with all its messages when it is unused for that long"),
        ("x-message-ttl", "a message that waits longer leaves the queue without having been delivered"),
        ("x-max-length", "beyond that it drops or refuses messages"),
        ("x-max-length-bytes", "beyond that it drops or refuses messages"),
    ] {
        if let Some(Some(value)) = found.get(argument) {
            warnings.push(format!("queue {name:?} has {argument} {value}: {loss}"));
        }
    }
    // If the type is not among the differences, it is the one that the host would declare.
    let quorum = !transient && !is(found, "auto_delete", "true") && !found.contains_key("x-queue-type");
    if quorum {
        warnings.extend(delivery_limit(name, found));
        if is_set(found, "x-dead-letter-exchange") && found.contains_key("x-dead-letter-strategy") {
            notes.push(format!(
                "queue {name:?} dead-letters at most once: a broker that dies in the act loses the message; \
                 x-dead-letter-strategy at-least-once, with x-overflow reject-publish, would keep it"
            ));
        }
    } else {
        notes.push(format!(
            "queue {name:?} is not a quorum queue: unless it is replicated in another way, it is on one node, and while \
             that is down so are its messages"
        ));
    }
    if is(found, "x-single-active-consumer", "true") {
        notes.push(format!("queue {name:?} has a single active consumer: of several hosts only one gets messages"));
    }
    (warnings.into_iter().map(Warning).collect(), notes)
}

/// Warns about messages that a quorum queue drops. It gives up a message that was returned too often, and drops it
/// if there is no dead-letter exchange (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
fn delivery_limit(name: &str, found: &Differences) -> Option<String> {
    // An argument that is not among the differences is set, and to the host's own value.
    let dropped = matches!(found.get("x-dead-letter-exchange"), Some(None));
    let limit = match found.get("x-delivery-limit") {
        Some(Some(limit)) if limit.starts_with('-') => return None,
        Some(Some(limit)) => format!("a message that came back {limit} times is dropped"),
        Some(None) | None => "RabbitMQ 4 and newer drop a message that came back 20 times".to_owned(),
    };
    dropped.then(|| {
        format!(
            "queue {name:?} has no dead-letter exchange of its own: unless a policy names one, {limit} \
             (delete it when it is empty, and the host makes one that keeps it)"
        )
    })
}

/// Diagnoses an object that the host itself declares: any difference is worth a warning.
pub(super) fn own(what: &str, name: &str, meant: &FieldTable, found: &Differences) -> Diagnosis {
    if found.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let differences: Vec<_> = found
        .iter()
        .map(|(property, value)| {
            let value = value.as_deref().unwrap_or("absent");
            let meant = meant.inner().get(property.as_str()).map(shown);
            let meant = meant.or_else(|| (property == "durable").then(|| "true".to_owned()));
            format!("{property} is {value}, and should be {}", meant.as_deref().unwrap_or("absent"))
        })
        .collect();
    let warning = format!(
        "{what} {name:?} is not as the host makes it ({}): stop the hosts, delete it when it is empty, and run \
         `notify-host topology apply`",
        differences.join("; ")
    );
    (vec![Warning(warning)], Vec::new())
}

fn is_set(found: &Differences, argument: &str) -> bool {
    !matches!(found.get(argument), Some(None))
}

fn shown(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => format!("{:?}", text.to_string()),
        AMQPValue::LongLongInt(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(of: &[(&str, Option<&str>)]) -> Differences {
        of.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
    }

    #[test]
    fn what_drops_messages_is_a_warning_and_the_rest_is_a_note() {
        let no_exchange = ("x-dead-letter-exchange", None);
        for (found, warnings, notes) in [
            (&[][..], &[][..], &[][..]),
            (&[no_exchange], &["RabbitMQ 4 and newer drop"], &[]),
            (&[no_exchange, ("x-delivery-limit", Some("5"))], &["came back 5 times"], &[]),
            (&[no_exchange, ("x-delivery-limit", Some("-1"))], &[], &[]),
            (&[("x-delivery-limit", Some("5"))], &[], &[]),
            (&[("x-dead-letter-strategy", None)], &[], &["at most once"]),
            (&[("x-queue-type", Some("classic")), no_exchange], &[], &["not a quorum queue"]),
            (&[("durable", Some("false"))], &["not durable"], &["not a quorum queue"]),
            (&[("x-single-active-consumer", Some("true"))], &[], &["single active"]),
        ] {
            let (found_warnings, found_notes) = source_queue("q", &differences(found));
            let found_warnings: Vec<_> = found_warnings.iter().map(ToString::to_string).collect();
            for (said, expected) in [(found_warnings, warnings), (found_notes, notes)] {
                assert_eq!(said.len(), expected.len(), "{found:?}: {said:?}");
                assert!(said.iter().zip(expected).all(|(said, expected)| said.contains(expected)), "{said:?}");
            }
        }
    }

    #[test]
    fn our_own_are_told_what_differs() {
        let mut meant = FieldTable::default();
        meant.insert("x-message-ttl".into(), AMQPValue::LongLongInt(5000));
        let found = differences(&[("x-message-ttl", Some("1000")), ("x-max-length", Some("9"))]);
        let (warnings, _) = own("queue", "n.retry.5s", &meant, &found);
        let text = warnings[0].to_string();
        assert!(
            text.contains("(x-max-length is 9, and should be absent; x-message-ttl is 1000, and should be 5000)"),
            "{text}"
        );
        assert_eq!(own("queue", "n.retry.5s", &meant, &Differences::new()).0, []);
    }
}
