//! A record is one thing that happened to one event. Its form on disk is that of postcard; a change of it
//! is a new [`super::store`] version.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use crate::meters::SpillReason;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Milliseconds since 1970.
    pub(crate) at: i64,
    /// Of the event; for a message that is none, of its body.
    pub(crate) id: Box<str>,
    /// The id is unique within it.
    pub(crate) source: Box<str>,
    pub(crate) event_type: Box<str>,
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    Received(Received),
    /// It came again, and was not delivered.
    Duplicate,
    Spilled {
        #[serde(with = "shared")]
        plugin: Arc<str>,
        why: SpillReason,
    },
    Attempted(Attempted),
    /// The message is no event, and lies with the dead letters.
    Undecodable {
        code: Box<str>,
        reason: Box<str>,
        exchange: Box<str>,
        routing_key: Box<str>,
        bytes: u64,
    },
}

/// How it came, and who gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) subject: Option<Box<str>>,
    pub(crate) time: Option<Box<str>>,
    pub(crate) exchange: Box<str>,
    pub(crate) routing_key: Box<str>,
    /// The broker has offered it before.
    pub(crate) redelivered: bool,
    pub(crate) bytes: u64,
    /// The plugins whose subscriptions match.
    pub(crate) routed: Vec<Routed>,
    /// Plugins whose subscriptions do not match.
    pub(crate) not_subscribed: u32,
}

/// What routing said of one plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Routed {
    #[serde(with = "shared")]
    pub(crate) plugin: Arc<str>,
    pub(crate) rule: Rule,
}

/// The rule that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Rule {
    /// It gets every event.
    Everything,
    /// This subscription of its matches, and its filter, if it has one.
    Subscription(#[serde(with = "shared")] Arc<str>),
    /// Its filter does not match; why, in words.
    Filtered(#[serde(with = "shared")] Arc<str>),
    /// It tells of the plugin itself.
    AboutItself,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempted {
    #[serde(with = "shared")]
    pub(crate) plugin: Arc<str>,
    /// From 1, in its round.
    pub(crate) number: u32,
    pub(crate) max: u32,
    /// From 1; each replay of a dead letter begins a new one.
    pub(crate) round: u32,
    /// When the round began, in milliseconds since 1970: on another host, perhaps.
    pub(crate) first_at: i64,
    pub(crate) took_micros: u64,
    pub(crate) outcome: Recorded,
    /// What the plugin or the host says of it.
    pub(crate) reason: Option<Box<str>>,
    pub(crate) next: Next,
    /// What the plugin logged: level and text, the first few.
    pub(crate) log: Vec<(Box<str>, Box<str>)>,
    /// Lines that it logged after these.
    pub(crate) log_beyond: u64,
}

/// What it came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Recorded {
    Done,
    Skipped,
    /// With the fault's code.
    Retry(Box<str>),
    Reject(Box<str>),
    Misconfigured,
}

/// Where the delivery went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Next {
    /// It is settled.
    Nothing,
    /// Another attempt, not before this, in milliseconds since 1970.
    Attempt(i64),
    /// To the dead letters; why, in a word.
    DeadLetter(Box<str>),
    /// Into the queue of the plugin, which is paused.
    Held,
    /// The broker was lost before it had confirmed that: the message comes again, and the call is repeated.
    Unsettled,
}

/// A text of which one copy in memory serves many records; in the file each has its own.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        Box::<str>::deserialize(deserializer).map(Into::into)
    }
}
