//! A message as it arrived, and how its JSON is taken apart.

use std::borrow::Cow;
use std::collections::BTreeMap;

use broker::Message;
use serde_json::value::RawValue;

/// Why a message is not an event. Retrying does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the message is empty")]
    Empty,
    #[error("the message is not UTF-8 (byte {0})")]
    NotUtf8(usize),
    #[error("the message is not JSON: {0}")]
    NotJson(String),
    #[error("the message is no valid CloudEvent: {0}")]
    BadCloudEvent(String),
    #[error(
        "the message says nowhere what type of event it is: set the property `type`, a member `event`, or a routing key"
    )]
    NoType,
}

impl DecodeError {
    /// Returns a short, stable code for labels.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotUtf8(_) => "not-utf8",
            Self::NotJson(_) => "not-json",
            Self::BadCloudEvent(_) => "bad-cloudevent",
            Self::NoType => "no-type",
        }
    }
}

/// A message, and the exchange and routing key it came by.
#[derive(Clone, Copy, Debug)]
pub struct Arrived<'a> {
    pub message: &'a Message,
    pub exchange: &'a str,
    pub routing_key: &'a str,
}

/// The members of a JSON object, with their values as written. If a name is repeated, the last one counts.
pub(super) type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Returns the body as text.
pub(super) fn text(body: &[u8]) -> Result<&str, DecodeError> {
    if body.is_empty() {
        return Err(DecodeError::Empty);
    }
    std::str::from_utf8(body).map_err(|error| DecodeError::NotUtf8(error.valid_up_to()))
}

/// Splits an object into its members; `None` if it is no object. Values are skipped at any depth, not parsed.
pub(super) fn members(raw: &RawValue) -> Option<Members<'_>> {
    if !raw.get().starts_with('{') {
        return None;
    }
    serde_json::from_str(raw.get()).ok()
}

/// Returns a string's text, or a number or boolean as written.
pub(super) fn scalar(raw: &RawValue) -> Option<String> {
    let json = raw.get();
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok(),
        b'{' | b'[' | b'n' => None,
        _ => Some(json.to_owned()),
    }
}
