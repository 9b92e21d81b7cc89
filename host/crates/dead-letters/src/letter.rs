//! A dead letter as the operator sees it.

use broker::{Delivery, Headers, Message, Value};
use delivery::{DeliveryHeaders, Fault};
use serde::Serialize;
use uuid::Uuid;

/// Characters of a letter's id: enough to tell a million letters apart, and short enough to type.
const ID_CHARACTERS: usize = 10;
/// Namespace of the UUIDs that ids are derived from.
const NAMESPACE: Uuid = Uuid::from_u128(0x8d0c_5b1f_3e0a_4c52_a7a1_2d0e_94f6_5c13);

/// Everything known about a dead letter. Times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Stable across passes. Only copies of the same letter share an id.
    pub id: String,
    /// Absent if the message was not an event.
    pub plugin: Option<String>,
    pub event_type: Option<String>,
    pub event_id: Option<String>,
    pub code: String,
    pub reason: String,
    pub given_up: String,
    pub attempts: u32,
    pub round: u32,
    /// Absent if the message does not carry the time.
    pub first_at: Option<String>,
    pub last_at: Option<String>,
    pub exchange: String,
    pub routing_key: String,
    /// How earlier rounds ended.
    pub history: Vec<String>,
    /// The id of the event that this edited event replaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    pub(super) bytes: usize,
    #[serde(skip)]
    pub(super) last_at_millis: Option<i64>,
}

/// Reads the delivery headers of a message in the dead-letter queue, or derives them for a foreign message.
pub(super) fn headers_of(delivery: &Delivery) -> DeliveryHeaders {
    DeliveryHeaders::read(&delivery.message).unwrap_or_else(|| given_up_by_the_broker(delivery))
}

/// Derives delivery headers for a message without any. RabbitMQ dead-letters messages that returned to their
/// queue too often, and records that in a header (<https://www.rabbitmq.com/docs/dlx#effects>). If that header
/// is missing, somebody put the message there by hand.
fn given_up_by_the_broker(delivery: &Delivery) -> DeliveryHeaders {
    let nothing = Headers::new();
    let death = match delivery.message.properties.headers.get("x-death") {
        Some(Value::List(deaths)) => deaths.iter().find_map(|death| match death {
            Value::Table(death) => Some(death),
            _ => None,
        }),
        _ => None,
    };
    let death = death.unwrap_or(&nothing);
    let text = |name: &str| death.get(name).and_then(Value::to_text);
    let seconds = text("time").and_then(|seconds| seconds.parse::<i64>().ok()).unwrap_or(0);
    let mut delivery_headers = DeliveryHeaders::begin(delivery, None, seconds.saturating_mul(1000));
    if let Some(reason) = text("reason") {
        let queue = text("queue").unwrap_or_default();
        delivery_headers.fault =
            Some(Fault::new(reason.replace('_', "-"), format!("the broker took it out of queue {queue:?}: {reason}")));
        delivery_headers.given_up = Some("by-the-broker".to_owned());
        delivery_headers.exchange = text("exchange").unwrap_or_default();
        delivery_headers.routing_key = match death.get("routing-keys") {
            Some(Value::List(keys)) => keys.first().and_then(Value::to_text).unwrap_or_default(),
            _ => String::new(),
        };
    }
    delivery_headers
}

impl Summary {
    pub fn new(delivery_headers: &DeliveryHeaders, message: &Message) -> Self {
        let fault = delivery_headers.fault.clone();
        let recipient = delivery_headers.recipient.clone();
        Self {
            id: id(delivery_headers, message),
            plugin: recipient.as_ref().map(|recipient| recipient.plugin.clone()),
            event_type: recipient.as_ref().map(|recipient| recipient.event_type.clone()),
            event_id: recipient.map(|recipient| recipient.event_id),
            code: fault.as_ref().map_or_else(|| "unknown".to_owned(), |fault| fault.code.clone()),
            reason: fault.map_or_else(|| "it carries no reason".to_owned(), |fault| fault.reason),
            given_up: delivery_headers.given_up.clone().unwrap_or_else(|| "unknown".to_owned()),
            attempts: delivery_headers.attempts,
            round: delivery_headers.round,
            first_at: time(delivery_headers.first_at),
            last_at: time(delivery_headers.last_at),
            exchange: delivery_headers.exchange.clone(),
            routing_key: delivery_headers.routing_key.clone(),
            history: delivery_headers.history.clone(),
            replaces: delivery_headers.replaces.clone(),
            bytes: message.body.len(),
            last_at_millis: Some(delivery_headers.last_at).filter(|millis| *millis > 0),
        }
    }
}

/// Derives the id from the parts of a letter that never change but differ between the rounds of one delivery.
fn id(delivery_headers: &DeliveryHeaders, message: &Message) -> String {
    let body = Uuid::new_v5(&NAMESPACE, &message.body);
    let recipient = delivery_headers.recipient.as_ref().map(|recipient| (&recipient.plugin, &recipient.event_id));
    let name = format!(
        "{recipient:?} {} {} {} {body}",
        delivery_headers.first_at, delivery_headers.last_at, delivery_headers.round
    );
    let id = Uuid::new_v5(&NAMESPACE, name.as_bytes()).simple().to_string();
    id.chars().take(ID_CHARACTERS).collect()
}

/// Formats milliseconds since 1970. Returns `None` for 0 and earlier, which mean that the time is unknown.
fn time(millis: i64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(millis).ok().filter(|_| millis > 0)?;
    Some(format!("{time:.3}"))
}
