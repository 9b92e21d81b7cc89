//! A dead letter, as the operator sees it.

use broker::{Delivery, Message};
use serde::Serialize;
use uuid::Uuid;

use crate::delivery::Trail;

/// Characters of an id: enough to tell a million letters apart, and few enough to type.
const ID_CHARACTERS: usize = 10;
const NAMESPACE: Uuid = Uuid::from_u128(0x8d0c_5b1f_3e0a_4c52_a7a1_2d0e_94f6_5c13);

/// What is known of a dead letter. Times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    /// The same at each look.
    pub(super) id: String,
    /// Absent where the message was no event.
    pub(super) plugin: Option<String>,
    pub(super) event_type: Option<String>,
    pub(super) event_id: Option<String>,
    pub(super) code: String,
    pub(super) reason: String,
    pub(super) given_up: String,
    pub(super) attempts: u32,
    pub(super) round: u32,
    pub(super) first_at: String,
    pub(super) last_at: String,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    /// How earlier rounds ended.
    pub(super) history: Vec<String>,
    pub(super) bytes: usize,
    #[serde(skip)]
    pub(super) last_at_millis: i64,
}

/// The trail of a message in the dead-letter queue. RabbitMQ itself puts messages there, too: what
/// a plugin's queue gave up has the trail of its last attempt, or none.
pub(super) fn trail_of(delivery: &Delivery) -> Trail {
    Trail::read(&delivery.message).unwrap_or_else(|| Trail::begin(delivery, None, 0))
}

impl Summary {
    pub(super) fn new(trail: &Trail, message: &Message) -> Self {
        let fault = trail.fault.clone();
        let recipient = trail.recipient.clone();
        Self {
            id: id(trail, message),
            plugin: recipient.as_ref().map(|recipient| recipient.plugin.clone()),
            event_type: recipient.as_ref().map(|recipient| recipient.event_type.clone()),
            event_id: recipient.map(|recipient| recipient.event_id),
            code: fault.as_ref().map_or_else(|| "unknown".to_owned(), |fault| fault.code.clone()),
            reason: fault.map_or_else(|| "it carries no reason".to_owned(), |fault| fault.reason),
            given_up: trail.given_up.clone().unwrap_or_else(|| "unknown".to_owned()),
            attempts: trail.attempts,
            round: trail.round,
            first_at: time(trail.first_at),
            last_at: time(trail.last_at),
            exchange: trail.exchange.clone(),
            routing_key: trail.routing_key.clone(),
            history: trail.history.clone(),
            bytes: message.body.len(),
            last_at_millis: trail.last_at,
        }
    }
}

fn id(trail: &Trail, message: &Message) -> String {
    let body = Uuid::new_v5(&NAMESPACE, &message.body);
    let recipient = trail.recipient.as_ref().map(|recipient| (&recipient.plugin, &recipient.event_id));
    let name = format!("{recipient:?} {} {} {body}", trail.first_at, trail.round);
    let id = Uuid::new_v5(&NAMESPACE, name.as_bytes()).simple().to_string();
    id.chars().take(ID_CHARACTERS).collect()
}

fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| "unknown".to_owned(), |time| time.to_string())
}
