//! Delivery headers carry the history of a message: the plugin it is for, its attempts, and how they ended.
//! Their names begin with `x-notify-`.
//!
//! Everything else about the message stays as it arrived: body, properties and foreign headers.

use broker::{Delivery, Headers, Message, QueueNames, Value};
use event::trace_context;

use crate::policy::Fault;

/// Prefix of all delivery headers.
pub(crate) const PREFIX: &str = "x-notify-";

const PLUGIN: &str = "x-notify-plugin";
const EVENT_ID: &str = "x-notify-event-id";
const EVENT_TYPE: &str = "x-notify-event-type";
const IDEMPOTENCY_KEY: &str = "x-notify-idempotency-key";
const ATTEMPTS: &str = "x-notify-attempts";
const CODE: &str = "x-notify-code";
const REASON: &str = "x-notify-reason";
const GIVEN_UP: &str = "x-notify-given-up";
const FIRST_AT: &str = "x-notify-first-at";
const LAST_AT: &str = "x-notify-last-at";
const ROUND: &str = "x-notify-round";
const ROUND_AT: &str = "x-notify-round-at";
const HISTORY: &str = "x-notify-history";
const REPLACES: &str = "x-notify-replaces";
const EXCHANGE: &str = "x-notify-exchange";
const TRACE: &str = "x-notify-trace";
const ROUTING_KEY: &str = "x-notify-routing-key";
const NOT_YET_ROUTED: &str = "x-notify-not-yet-routed";
/// Names of headers that were left out for lack of room.
pub(super) const LEFT_BEHIND: &str = "x-notify-left-behind";

/// Maximum characters of a text. Headers travel in one frame, of 128 KiB by default.
const TEXT_CHARACTERS_MAX: usize = 4000;
/// Maximum number of earlier rounds in the history.
const HISTORY_LENGTH_MAX: usize = 10;
/// Maximum characters of an earlier round in the history.
const HISTORY_CHARACTERS_MAX: usize = 300;

/// The history of a delivery. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryHeaders {
    /// Absent if the message is not an event.
    pub recipient: Option<Recipient>,
    /// Attempts made in this round.
    pub attempts: u32,
    /// The fault of the last attempt, if it failed.
    pub fault: Option<Fault>,
    /// Why the delivery was given up, in one word such as `rejected`.
    pub given_up: Option<String>,
    /// When a host first received the message.
    pub first_at: i64,
    /// When the last attempt was made.
    pub last_at: i64,
    /// Starts at 1. Each replay of a dead letter begins a new round with fresh attempts.
    pub round: u32,
    /// When the first attempt of this round was made. Before that, when the round began.
    pub round_at: i64,
    /// How earlier rounds ended, one sentence each, oldest first. Only the last few are kept.
    pub history: Vec<String>,
    /// The id of the event that this one replaces. Set if an operator edited the event.
    pub replaces: Option<String>,
    /// The parent span of the attempts, as `traceparent`. `None` if no host has made spans so far.
    pub trace: Option<String>,
    /// Whether routing is still open, because the plugin had not been loaded. The consumer of the plugin's
    /// queue then checks subscriptions and filter first, and acknowledges events that the plugin does not want.
    pub not_yet_routed: bool,
    /// The exchange through which the message first arrived.
    pub exchange: String,
    pub routing_key: String,
}

/// The event, and the plugin it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub plugin: String,
    pub event_id: String,
    pub event_type: String,
    pub idempotency_key: String,
}

impl DeliveryHeaders {
    /// Creates the headers of a message that a host sees for the first time.
    pub fn begin(delivery: &Delivery, recipient: Option<Recipient>, now: i64) -> Self {
        Self { recipient, ..Self::new(delivery.exchange.clone(), delivery.routing_key.clone(), now) }
    }

    /// Creates the headers of a message without attempts that arrived by this exchange and routing key. `now`
    /// is in milliseconds since 1970.
    pub fn new(exchange: String, routing_key: String, now: i64) -> Self {
        Self {
            recipient: None,
            attempts: 0,
            fault: None,
            given_up: None,
            first_at: now,
            last_at: now,
            round: 1,
            round_at: now,
            history: Vec::new(),
            replaces: None,
            trace: None,
            not_yet_routed: false,
            exchange,
            routing_key,
        }
    }

    /// Reads the delivery headers of a message. Returns `None` if it has none.
    pub fn read(message: &Message) -> Option<Self> {
        let headers = &message.properties.headers;
        let text = |name: &str| headers.get(name).and_then(Value::to_text);
        let number = |name: &str| text(name)?.parse::<i64>().ok();
        let count = |name: &str| number(name).and_then(|number| u32::try_from(number).ok());
        let recipient = text(PLUGIN).map(|plugin| Recipient {
            plugin,
            event_id: text(EVENT_ID).unwrap_or_default(),
            event_type: text(EVENT_TYPE).unwrap_or_default(),
            idempotency_key: text(IDEMPOTENCY_KEY).unwrap_or_default(),
        });
        let first_at = number(FIRST_AT)?;
        Some(Self {
            recipient,
            attempts: count(ATTEMPTS).unwrap_or(0),
            fault: text(CODE).map(|code| Fault::new(code, text(REASON).unwrap_or_default())),
            given_up: text(GIVEN_UP),
            first_at,
            last_at: number(LAST_AT).unwrap_or(first_at),
            round: count(ROUND).unwrap_or(1),
            round_at: number(ROUND_AT).unwrap_or(first_at),
            history: match headers.get(HISTORY) {
                Some(Value::List(rounds)) => rounds.iter().filter_map(Value::to_text).collect(),
                _ => Vec::new(),
            },
            replaces: text(REPLACES),
            trace: text(TRACE).filter(|trace| trace_context::is_parent(trace)),
            not_yet_routed: headers.contains_key(NOT_YET_ROUTED),
            exchange: text(EXCHANGE).unwrap_or_default(),
            routing_key: text(ROUTING_KEY).unwrap_or_default(),
        })
    }

    /// Returns the message with these delivery headers in place of any others, ready to be published again.
    pub fn write(&self, message: &Message) -> Message {
        let mut message = Self::erase(message);
        let headers = &mut message.properties.headers;
        let mut set = |name: &str, value: Value| headers.insert(name.to_owned(), value);
        if let Some(recipient) = &self.recipient {
            set(PLUGIN, recipient.plugin.as_str().into());
            set(EVENT_ID, shorten(&recipient.event_id, TEXT_CHARACTERS_MAX).into());
            set(EVENT_TYPE, shorten(&recipient.event_type, TEXT_CHARACTERS_MAX).into());
            set(IDEMPOTENCY_KEY, recipient.idempotency_key.as_str().into());
        }
        set(ATTEMPTS, Value::I64(self.attempts.into()));
        if let Some(fault) = &self.fault {
            set(CODE, fault.code.as_str().into());
            set(REASON, shorten(&fault.reason, TEXT_CHARACTERS_MAX).into());
        }
        if let Some(given_up) = &self.given_up {
            set(GIVEN_UP, given_up.as_str().into());
        }
        set(FIRST_AT, Value::I64(self.first_at));
        set(LAST_AT, Value::I64(self.last_at));
        if self.round_at != self.first_at {
            set(ROUND_AT, Value::I64(self.round_at));
        }
        if self.round > 1 {
            set(ROUND, Value::I64(self.round.into()));
            set(HISTORY, Value::List(self.history.iter().map(|round| round.as_str().into()).collect()));
        }
        if let Some(replaces) = &self.replaces {
            set(REPLACES, shorten(replaces, TEXT_CHARACTERS_MAX).into());
        }
        if let Some(trace) = &self.trace {
            set(TRACE, trace.as_str().into());
        }
        if self.not_yet_routed {
            set(NOT_YET_ROUTED, Value::Bool(true));
        }
        set(EXCHANGE, self.exchange.as_str().into());
        set(ROUTING_KEY, self.routing_key.as_str().into());
        message
    }

    /// Returns the message without delivery headers, ready to be published again.
    pub fn erase(message: &Message) -> Message {
        let mut message = message.clone();
        message.defuse();
        message.properties.headers.retain(|name, _| !name.starts_with(PREFIX));
        message
    }

    /// Begins a new round with fresh attempts. The current round becomes history.
    #[must_use]
    pub fn next_round(mut self, now: i64) -> Self {
        let fault = self.fault.take().unwrap_or_else(|| Fault::new("unknown", ""));
        let round = format!("{}: {} (attempts: {}): {}", self.round, fault.code, self.attempts, fault.reason);
        self.history.push(shorten(&round, HISTORY_CHARACTERS_MAX));
        let surplus = self.history.len().saturating_sub(HISTORY_LENGTH_MAX);
        self.history.drain(..surplus);
        Self { attempts: 0, given_up: None, round: self.round.saturating_add(1), round_at: now, ..self }
    }
}

/// Removes the headers that RabbitMQ added when our own retry queues expired the message
/// (<https://www.rabbitmq.com/docs/dlx#effects>). The ones it added for other queues stay.
pub(super) fn forget_own_waits(headers: &mut Headers, names: &QueueNames) {
    let own = format!("{}.retry.", names.source());
    let is_own = |value: &Value| value.to_text().is_some_and(|queue| queue.starts_with(&own));
    if let Some(Value::List(deaths)) = headers.get_mut("x-death") {
        deaths.retain(|death| !matches!(death, Value::Table(death) if death.get("queue").is_some_and(is_own)));
        if deaths.is_empty() {
            headers.remove("x-death");
        }
    }
    for which in ["first", "last"] {
        if headers.get(&format!("x-{which}-death-queue")).is_some_and(is_own) {
            for what in ["queue", "exchange", "reason"] {
                headers.remove(&format!("x-{which}-death-{what}"));
            }
        }
    }
}

fn shorten(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery_headers() -> DeliveryHeaders {
        DeliveryHeaders {
            recipient: Some(Recipient {
                plugin: "email".to_owned(),
                event_id: "1".to_owned(),
                event_type: "OrderCreated".to_owned(),
                idempotency_key: "key".to_owned(),
            }),
            attempts: 3,
            fault: Some(Fault::new("timed-out", "it passed its time limit")),
            given_up: Some("attempts-used-up".to_owned()),
            first_at: 1000,
            last_at: 2000,
            round_at: 1000,
            replaces: Some("0".to_owned()),
            trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            ..DeliveryHeaders::new("orders".to_owned(), "order.created".to_owned(), 1)
        }
    }

    #[test]
    fn what_is_written_is_read_and_all_else_stays() {
        let mut message = Message::json("{}");
        message.properties.headers.insert("x-foreign".to_owned(), Value::I8(1));
        message.properties.headers.insert("x-notify-old".to_owned(), Value::Void);
        let next = delivery_headers().next_round(3000);
        for delivery_headers in
            [delivery_headers(), next, DeliveryHeaders { not_yet_routed: true, ..delivery_headers() }]
        {
            let written = delivery_headers.write(&message);
            assert_eq!(DeliveryHeaders::read(&written), Some(delivery_headers));
            assert_eq!(written.body, message.body);
            let foreign = |name: &&String| !name.starts_with(PREFIX);
            assert_eq!(written.properties.headers.keys().filter(foreign).collect::<Vec<_>>(), ["x-foreign"]);
            assert!(!written.properties.headers.contains_key("x-notify-old"));
        }
        assert_eq!(DeliveryHeaders::read(&message), None);
    }

    #[test]
    fn a_new_round_has_fresh_attempts_and_remembers_the_last_ones() {
        let mut delivery_headers = delivery_headers();
        for _ in 0..15 {
            delivery_headers.fault = Some(Fault::new("busy", "x".repeat(9000)));
            delivery_headers.attempts = 8;
            delivery_headers = delivery_headers.next_round(5000);
        }
        assert_eq!(
            (delivery_headers.attempts, delivery_headers.round, delivery_headers.round_at, delivery_headers.first_at),
            (0, 16, 5000, 1000)
        );
        assert_eq!((delivery_headers.fault, delivery_headers.given_up), (None, None));
        assert_eq!(delivery_headers.history.len(), HISTORY_LENGTH_MAX);
        assert!(
            delivery_headers.history[9].starts_with("15: busy (attempts: 8): xxx"),
            "{:?}",
            delivery_headers.history
        );
        assert!(delivery_headers.history.iter().all(|round| round.len() <= HISTORY_CHARACTERS_MAX));
    }

    #[test]
    fn only_our_own_waits_are_forgotten() {
        let death = |queue: &str| Value::Table(Headers::from([("queue".to_owned(), queue.into())]));
        let mut headers = Headers::from([
            ("x-death".to_owned(), Value::List(vec![death("q.retry.5s"), death("theirs")])),
            ("x-first-death-queue".to_owned(), "theirs".into()),
            ("x-last-death-queue".to_owned(), "q.retry.5s".into()),
            ("x-last-death-reason".to_owned(), "expired".into()),
        ]);
        forget_own_waits(&mut headers, &QueueNames::new("q"));
        assert_eq!(headers["x-death"], Value::List(vec![death("theirs")]));
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-death", "x-first-death-queue"]);
        let mut headers = Headers::from([("x-death".to_owned(), Value::List(vec![death("q.retry.1s")]))]);
        forget_own_waits(&mut headers, &QueueNames::new("q"));
        assert!(headers.is_empty());
    }
}
