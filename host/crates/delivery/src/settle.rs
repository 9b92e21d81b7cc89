//! Settling makes outcomes durable. The broker may forget a message only once that is confirmed.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use broker::{Broker, BrokerError, Headers, Message, PublishError, Source, Target, Value};
use tracing::warn;

use crate::delivery_headers::{self, DeliveryHeaders};
use crate::policy::Fault;

/// Code of a dead letter that the broker could not carry to its intended destination.
pub const INEXPRESSIBLE: &str = "inexpressible";
/// Shortest pause between attempts to write a message that the broker refuses, for example because a queue is
/// full.
const REFUSED_PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause between attempts to write a refused message.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Bytes of a header in a frame, in addition to its name and value.
const HEADER_OVERHEAD: usize = 8;
/// Length in bytes up to which a text is never truncated.
const SHORT_TEXT: usize = 40;
/// Maximum number of omitted headers that a message lists.
const LEFT_BEHIND_MAX: usize = 50;
/// Maximum characters of an omitted header's name in the list.
const LEFT_BEHIND_CHARACTERS_MAX: usize = 100;

/// The next destination of a delivery that is not done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Onward<'a> {
    /// The plugin's own queue, after a delay.
    Later { plugin: &'a str, delay: Duration },
    /// The plugin's own queue.
    Spill { plugin: &'a str },
    /// The dead-letter queue.
    Dead,
}

/// The actual destination of a delivery.
#[derive(Debug)]
pub(super) enum Forwarded {
    AsMeant,
    /// The dead-letter queue, because the broker cannot carry the message as it is.
    Dead(Fault),
}

/// Writes the message with its delivery headers to its next destination, and returns when the broker has
/// confirmed it. An error means that the session is lost and the message will be offered again.
pub(super) async fn pass_on(
    broker: &Broker,
    source: &Source,
    message: &Message,
    delivery_headers: &DeliveryHeaders,
    onward: Onward<'_>,
) -> Result<Forwarded, BrokerError> {
    let problem = match write_on(broker, source, delivery_headers.write(message), onward).await? {
        Ok(()) => return Ok(Forwarded::AsMeant),
        Err(problem) => problem,
    };
    // Making the message expressible could change the event's id, so it must not be tried again in that form. A
    // dead letter settles it.
    let fault = Fault::new(INEXPRESSIBLE, format!("it could not be passed on: {problem}"));
    let mut delivery_headers = DeliveryHeaders { given_up: Some(INEXPRESSIBLE.to_owned()), ..delivery_headers.clone() };
    if let Some(failed) = delivery_headers.fault.replace(fault.clone()) {
        delivery_headers.history.push(format!("{}: {}: {}", delivery_headers.round, failed.code, failed.reason));
    }
    write_dead(broker, source, delivery_headers.write(message)).await?;
    Ok(Forwarded::Dead(fault))
}

/// Writes a dead letter that already carries its delivery headers, in any form that the broker can carry.
pub(super) async fn write_dead(broker: &Broker, source: &Source, mut letter: Message) -> Result<(), BrokerError> {
    letter.make_expressible();
    // The inner error cannot occur: the broker can carry an expressible message with small enough headers.
    write_on(broker, source, letter, Onward::Dead).await?.map_err(BrokerError::Lost)
}

/// Writes a message to its destination. The inner error means that the broker cannot carry the message in this
/// form.
async fn write_on(
    broker: &Broker,
    source: &Source,
    mut carried: Message,
    onward: Onward<'_>,
) -> Result<Result<(), String>, BrokerError> {
    let names = &source.names;
    let (queue, plugin) = match onward {
        Onward::Later { plugin, .. } | Onward::Spill { plugin } => (names.plugin(plugin), Some(plugin)),
        Onward::Dead => (names.dead(), None),
    };
    let target = match onward {
        Onward::Later { plugin, delay } => Target::PluginLater { names, plugin, delay },
        Onward::Spill { .. } | Onward::Dead => Target::Queue(&queue),
    };
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(REFUSED_PAUSE_MIN)
        .with_max_delay(REFUSED_PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build();
    loop {
        let error = match broker.forward(target, &carried).await {
            Ok(()) => return Ok(Ok(())),
            Err(PublishError::Unconfirmed(error)) => return Err(error),
            Err(PublishError::HeadersTooLarge { bytes_max, .. }) if lighten(&mut carried, bytes_max) => continue,
            Err(PublishError::Inexpressible(problem)) => match onward {
                Onward::Later { .. } | Onward::Spill { .. } => return Ok(Err(problem)),
                Onward::Dead if carried.make_expressible() => continue,
                Onward::Dead => PublishError::Inexpressible(problem),
            },
            Err(error) => error,
        };
        let pause = pauses.next().unwrap_or(REFUSED_PAUSE_MAX);
        warn!(queue, "cannot pass a message on: {error}; next try in {} ms", pause.as_millis());
        tokio::time::sleep(pause).await;
        match error {
            // Somebody deleted the queue.
            PublishError::NotFound { .. } | PublishError::Unroutable { .. } => {
                let made = match plugin {
                    Some(plugin) => broker.declare_plugins(names, &[plugin]).await,
                    None => broker.declare_source(source).await,
                };
                match made {
                    Ok(_) => {}
                    Err(error @ BrokerError::Lost(_)) => return Err(error),
                    Err(error) => warn!(queue, "cannot make what is missing: {error}"),
                }
            }
            PublishError::Refused(_) | PublishError::Inexpressible(_) | PublishError::HeadersTooLarge { .. } => {}
            PublishError::Unconfirmed(error) => return Err(error),
        }
    }
}

/// Shrinks the headers to `bytes_max`, the room for them in one frame. If foreign headers leave too little room
/// for the delivery headers, the largest of them are left out and the message lists their names. If the
/// delivery headers alone are too large, their longest texts are truncated. Returns whether the headers became
/// smaller.
fn lighten(message: &mut Message, bytes_max: usize) -> bool {
    let headers = &mut message.properties.headers;
    let mut sizes: Vec<_> = headers.iter().map(|(name, value)| (size(name, value), name.clone())).collect();
    let before: usize = sizes.iter().map(|(size, _)| size).sum();
    // Reserve room for the list of omitted headers.
    let list_bytes_max = (LEFT_BEHIND_MAX * (LEFT_BEHIND_CHARACTERS_MAX + HEADER_OVERHEAD)).min(bytes_max / 4);
    let goal = bytes_max.saturating_sub(list_bytes_max);
    let mut total = before;
    sizes.retain(|(_, name)| !name.starts_with(delivery_headers::PREFIX));
    sizes.sort();
    let (mut left_behind, mut list_bytes) = (Vec::new(), 0);
    while let Some((size, name)) = sizes.pop().filter(|_| total > goal) {
        headers.remove(&name);
        total -= size;
        let name: String = name.chars().take(LEFT_BEHIND_CHARACTERS_MAX).collect();
        list_bytes += name.len() + HEADER_OVERHEAD;
        if left_behind.len() < LEFT_BEHIND_MAX && list_bytes <= list_bytes_max {
            left_behind.push(Value::from(name));
        }
    }
    if !left_behind.is_empty() {
        headers.insert(delivery_headers::LEFT_BEHIND.to_owned(), Value::List(left_behind));
    }
    while headers_size(headers) > bytes_max {
        let longest = headers.iter_mut().max_by_key(|(_, value)| size("", value));
        match longest {
            Some((_, Value::Text(text))) if text.len() > SHORT_TEXT => {
                text.truncate(text.floor_char_boundary(text.len() / 2));
            }
            Some((_, Value::List(values))) if !values.is_empty() => drop(values.pop()),
            _ => break,
        }
    }
    headers_size(headers) < before
}

fn headers_size(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| size(name, value)).sum()
}

/// Returns an upper bound of the bytes in a frame. Nested values are estimated by their JSON, which is longer.
fn size(name: &str, value: &Value) -> usize {
    name.len()
        + HEADER_OVERHEAD
        + match value {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) | Value::LongString(bytes) => bytes.len(),
            other => serde_json::to_vec(other).map_or(0, |json| json.len()),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_leave_no_room_stay_behind() {
        const ROOM: usize = 126_000;
        let mut message = Message::json("{}");
        let headers = &mut message.properties.headers;
        headers.insert("small".to_owned(), "x".into());
        headers.insert("x-notify-reason".to_owned(), "r".repeat(4000).into());
        assert!(!lighten(&mut message, ROOM), "there is nothing to do");
        assert_eq!(message.properties.headers.len(), 2);
        message.properties.headers.insert("large".to_owned(), "x".repeat(125_000).into());
        assert!(lighten(&mut message, ROOM));
        let names: Vec<_> = message.properties.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["small", "x-notify-left-behind", "x-notify-reason"]);
        assert_eq!(message.properties.headers["x-notify-left-behind"], Value::List(vec!["large".into()]));
        // This connection has small frames.
        message.properties.headers.insert("medium".to_owned(), "x".repeat(5_000).into());
        lighten(&mut message, 8 << 10);
        assert!(!message.properties.headers.contains_key("medium"));
    }

    #[test]
    fn headers_fit_into_a_frame_of_whatever_size() {
        let mut message = Message::json("{}");
        let headers = &mut message.properties.headers;
        for number in 0..1000 {
            headers.insert(format!("theirs-{number:0>200}"), Value::List(vec![Value::Bool(true); number % 7]));
        }
        headers.insert("x-notify-reason".to_owned(), "é".repeat(4000).into());
        headers.insert("x-notify-event-id".to_owned(), "é".repeat(4000).into());
        headers.insert("x-notify-history".to_owned(), Value::List(vec!["r".repeat(300).into(); 10]));
        headers.insert("x-notify-attempts".to_owned(), Value::I64(3));
        for room in [131_000, 60_000, 8000, 4000, 1000, 500] {
            let mut message = message.clone();
            assert!(lighten(&mut message, room));
            let size = headers_size(&message.properties.headers);
            assert!(size <= room, "{size} of {room}");
            assert_eq!(message.properties.headers["x-notify-attempts"], Value::I64(3));
            assert!(message.properties.headers.contains_key("x-notify-left-behind"));
        }
    }

    #[tokio::test]
    async fn what_the_broker_cannot_carry_on_becomes_a_dead_letter_that_it_can() {
        use broker::{BrokerUrl, ConnectOptions, ExchangeKind, QueueNames};

        let folder = tempfile::tempdir().unwrap();
        let url = BrokerUrl::Sqlite(folder.path().join("queue.db"));
        let options = ConnectOptions { name: "test".to_owned(), timeout: Duration::from_secs(30) };
        let broker = Broker::connect(&url, &options).await.unwrap();
        let source = Source {
            exchange: "e".to_owned(),
            kind: ExchangeKind::Topic,
            names: QueueNames::new("q"),
            bindings: Vec::new(),
        };
        broker.declare_source(&source).await.unwrap();
        broker.declare_plugins(&source.names, &["p"]).await.unwrap();
        let mut message = Message::json("{}");
        let deep = (0..100).fold(Value::Void, |value, _| Value::List(vec![value]));
        message.properties.headers.insert("deep".to_owned(), deep);
        let delivery_headers = DeliveryHeaders {
            attempts: 1,
            fault: Some(Fault::new("busy", "it was busy")),
            ..DeliveryHeaders::new("orders".to_owned(), "order.created".to_owned(), 1)
        };
        for (onward, instead) in [
            (Onward::Later { plugin: "p", delay: Duration::from_secs(1) }, true),
            (Onward::Spill { plugin: "p" }, true),
            (Onward::Dead, false),
        ] {
            let passed = pass_on(&broker, &source, &message, &delivery_headers, onward);
            let landed = tokio::time::timeout(Duration::from_secs(30), passed).await.expect("it loops").unwrap();
            assert_eq!(matches!(landed, Forwarded::Dead(_)), instead, "{landed:?}");
            let mut consumer = broker.consume("q.dead", 1).await.unwrap();
            let letter = consumer.next().await.unwrap().unwrap();
            assert_eq!(letter.message.body, "{}");
            let read = DeliveryHeaders::read(&letter.message).unwrap();
            let code = read.fault.unwrap().code;
            assert_eq!((&*code, read.attempts), (if instead { INEXPRESSIBLE } else { "busy" }, 1));
            assert_eq!(read.given_up.is_some(), instead);
            letter.receipt.ack();
            consumer.close().await.unwrap();
        }
        assert_eq!(broker.inspect("q.plugin.p").await.unwrap().map(|state| state.ready + state.delayed), Some(0));
    }
}
