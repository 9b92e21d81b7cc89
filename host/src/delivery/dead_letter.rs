//! A dead letter is a message that was given up: byte for byte as it came, with the reason in
//! headers of its own.

use broker::{Delivery, Message, Value};

use crate::delivery::policy::Fault;

/// Characters of a reason that are kept: headers travel in one frame, of 128 KiB by default.
const REASON_CHARACTERS_MAX: usize = 4000;

const REASON: &str = "x-notify-reason";
const CODE: &str = "x-notify-code";
const PLUGIN: &str = "x-notify-plugin";
const ATTEMPTS: &str = "x-notify-attempts";
const EVENT_ID: &str = "x-notify-event-id";
const EVENT_TYPE: &str = "x-notify-event-type";
const IDEMPOTENCY_KEY: &str = "x-notify-idempotency-key";
const EXCHANGE: &str = "x-notify-exchange";
const ROUTING_KEY: &str = "x-notify-routing-key";
const FIRST_AT: &str = "x-notify-first-at";
const LAST_AT: &str = "x-notify-last-at";

/// What is known of a delivery that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obituary {
    pub(super) fault: Fault,
    /// Absent where the message was no event.
    pub(super) event: Option<EventNames>,
    /// Milliseconds since 1970.
    pub(super) first_at: i64,
    pub(super) last_at: i64,
}

/// The event, and the plugin that it was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventNames {
    pub(super) plugin: String,
    pub(super) attempts: u32,
    pub(super) id: String,
    pub(super) event_type: String,
    pub(super) idempotency_key: String,
}

/// The message as it came, and what is to be known of it.
pub(super) fn dead_letter(delivery: &Delivery, obituary: Obituary) -> Message {
    let mut message = delivery.message.clone();
    message.defuse();
    let headers = &mut message.properties.headers;
    let mut set = |name: &str, value: Value| headers.insert(name.to_owned(), value);
    set(REASON, shorten(&obituary.fault.reason).into());
    set(CODE, obituary.fault.code.into());
    set(EXCHANGE, delivery.exchange.as_str().into());
    set(ROUTING_KEY, delivery.routing_key.as_str().into());
    set(FIRST_AT, Value::I64(obituary.first_at));
    set(LAST_AT, Value::I64(obituary.last_at));
    if let Some(event) = obituary.event {
        set(PLUGIN, event.plugin.into());
        set(ATTEMPTS, Value::I64(event.attempts.into()));
        set(EVENT_ID, shorten(&event.id).into());
        set(EVENT_TYPE, shorten(&event.event_type).into());
        set(IDEMPOTENCY_KEY, event.idempotency_key.into());
    }
    message
}

fn shorten(text: &str) -> String {
    text.chars().take(REASON_CHARACTERS_MAX).collect()
}
