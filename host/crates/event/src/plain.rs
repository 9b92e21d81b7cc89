//! Plain JSON from services that do not use CloudEvents. Rules say where to find the attributes.

use std::str::FromStr;

use contract::types;
use serde_json::value::RawValue;

use crate::arrived::{Arrived, DecodeError, Members, members, scalar};
use crate::cloudevents::rfc3339;
use crate::{Event, id_of_body};

/// Where to find each attribute. The first place that has a value wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub event_type: Vec<Finder>,
    pub id: Vec<Finder>,
    pub source: Vec<Finder>,
    pub subject: Vec<Finder>,
    pub time: Vec<Finder>,
}

/// One place where an attribute may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finder {
    /// A message property: `type`, `message_id`, `app_id`, `correlation_id`, `timestamp`.
    Property(Property),
    /// A header, by its name.
    Header(String),
    /// A JSON pointer (RFC 6901), with its keys unescaped.
    Pointer(Vec<String>),
    Exchange,
    RoutingKey,
}

/// A message property that can hold an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    Type,
    MessageId,
    AppId,
    CorrelationId,
    Timestamp,
}

impl Default for Rules {
    fn default() -> Self {
        let pointer = |key: &str| Finder::Pointer(vec![key.to_owned()]);
        Self {
            event_type: vec![Finder::Property(Property::Type), pointer("event"), pointer("type"), Finder::RoutingKey],
            id: vec![Finder::Property(Property::MessageId), pointer("event_id"), pointer("id")],
            source: vec![Finder::Property(Property::AppId), Finder::Exchange],
            subject: vec![pointer("order_id")],
            time: vec![Finder::Property(Property::Timestamp)],
        }
    }
}

impl FromStr for Finder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let property = |property| Ok(Self::Property(property));
        if let Some(path) = text.strip_prefix('/') {
            let unescape = |key: &str| key.replace("~1", "/").replace("~0", "~");
            return Ok(Self::Pointer(path.split('/').map(unescape).collect()));
        }
        if let Some(name) = text.strip_prefix("header:").filter(|name| !name.is_empty()) {
            return Ok(Self::Header(name.to_owned()));
        }
        match text {
            "type" => property(Property::Type),
            "message_id" => property(Property::MessageId),
            "app_id" => property(Property::AppId),
            "correlation_id" => property(Property::CorrelationId),
            "timestamp" => property(Property::Timestamp),
            "exchange" => Ok(Self::Exchange),
            "routing-key" => Ok(Self::RoutingKey),
            other => Err(format!(
                "{other:?} is no place to look: expected a JSON pointer (\"/event\"), \"header:NAME\", \"exchange\", \
                 \"routing-key\", or a property: type, message_id, app_id, correlation_id, timestamp"
            )),
        }
    }
}

pub(super) fn event(
    arrived: Arrived<'_>,
    raw: &RawValue,
    members: Option<&Members<'_>>,
    rules: &Rules,
) -> Result<Event, DecodeError> {
    let find = |places: &[Finder]| places.iter().find_map(|place| look(place, arrived, members));
    let id = find(&rules.id);
    let has_own_id = id.is_some();
    let attributes = types::Event {
        id: id.unwrap_or_else(|| id_of_body(&arrived.message.body)),
        // The exchange is empty if the message was published to the queue directly.
        source: find(&rules.source).unwrap_or_else(|| "unknown".to_owned()),
        event_type: find(&rules.event_type).ok_or(DecodeError::NoType)?,
        subject: find(&rules.subject),
        time: find(&rules.time),
        data: raw.get().to_owned(),
        extensions: Vec::new(),
    };
    Ok(Event::new(attributes, has_own_id))
}

/// Reads the value at a place. An empty value counts as absent.
fn look(place: &Finder, arrived: Arrived<'_>, members: Option<&Members<'_>>) -> Option<String> {
    let properties = &arrived.message.properties;
    let found = match place {
        Finder::Property(Property::Type) => properties.message_type.clone(),
        Finder::Property(Property::MessageId) => properties.message_id.clone(),
        Finder::Property(Property::AppId) => properties.app_id.clone(),
        Finder::Property(Property::CorrelationId) => properties.correlation_id.clone(),
        Finder::Property(Property::Timestamp) => properties.timestamp.and_then(rfc3339),
        Finder::Header(name) => properties.headers.get(name)?.to_text(),
        Finder::Pointer(path) => follow(members?, path),
        Finder::Exchange => Some(arrived.exchange.to_owned()),
        Finder::RoutingKey => Some(arrived.routing_key.to_owned()),
    };
    found.filter(|text| !text.is_empty())
}

fn follow(object: &Members<'_>, path: &[String]) -> Option<String> {
    let (key, rest) = path.split_first()?;
    let value = object.get(key.as_str())?;
    if rest.is_empty() { scalar(value) } else { follow(&members(value)?, rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_a_pointer_or_by_its_name() {
        assert_eq!("/a/b~1c".parse(), Ok(Finder::Pointer(vec!["a".to_owned(), "b/c".to_owned()])));
        assert_eq!("routing-key".parse(), Ok(Finder::RoutingKey));
        assert_eq!("header:x-type".parse(), Ok(Finder::Header("x-type".to_owned())));
        assert!("event".parse::<Finder>().unwrap_err().contains("JSON pointer"));
    }
}
