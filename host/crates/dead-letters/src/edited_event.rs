//! Builds the edited event: a new event that replaces a dead one, with data that an operator corrected.
//!
//! It gets a new id, because the plugin may have partly handled the old one. Everything else stays the same,
//! byte for byte: the text is cut and pasted, never serialized again.

use std::collections::BTreeMap;
use std::ops::Range;

use broker::{Message, Value};
use bytes::Bytes;
use delivery::{DeliveryHeaders, Recipient};
use event::pretty_json::indent;
use event::{Arrived, Event, Finder, Property, Rules, decode};
use serde_json::value::RawValue;

/// Prefixes of CloudEvents attributes in message headers.
const CLOUD_EVENT_PREFIXES: [&str; 3] = ["cloudEvents:", "cloudEvents_", "ce-"];

/// The dead letter to edit.
#[derive(Clone, Copy)]
pub struct Original<'a> {
    pub delivery_headers: &'a DeliveryHeaders,
    pub message: &'a Message,
    pub rules: &'a Rules,
}

/// The replacement for the dead letter.
#[derive(Debug)]
pub struct EditedEvent {
    pub delivery_headers: DeliveryHeaders,
    pub message: Message,
}

/// Where a message keeps the event's data and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventForm {
    /// The body is the data, and the id is in a header.
    Binary,
    /// Data and id are members of the body.
    Structured,
    /// The body is the data, and the rules say where the id is.
    Plain,
    /// The message is not an event yet. All of the body can be edited.
    None,
}

impl Original<'_> {
    /// Returns the editable text.
    pub fn text(&self) -> anyhow::Result<String> {
        let body = std::str::from_utf8(&self.message.body)
            .map_err(|_| anyhow::anyhow!("its body is no text, and cannot be edited"))?;
        let whole = serde_json::from_str::<&RawValue>(body).ok();
        let text = match (self.form(), whole) {
            (EventForm::Structured, Some(whole)) => member(whole, "data").map_or_else(|| "null".to_owned(), indent),
            (_, Some(whole)) => indent(whole),
            (_, None) => body.to_owned(),
        };
        Ok(text + "\n")
    }

    /// Builds the event with `text` as its data and `id` as its new id. The error explains the problem to the
    /// operator.
    pub fn succeed(&self, text: &str, id: &str, now: i64) -> Result<EditedEvent, String> {
        let _: &RawValue = serde_json::from_str(text).map_err(|error| format!("what you wrote is no JSON: {error}"))?;
        let mut message = self.message.clone();
        match self.form() {
            EventForm::Binary => {
                for name in CLOUD_EVENT_PREFIXES.map(|prefix| format!("{prefix}id")) {
                    message.properties.headers.entry(name).and_modify(|value| *value = Value::from(id));
                }
                message.body = Bytes::from(text.to_owned());
            }
            EventForm::Structured => message.body = restructure(&message.body, text, id)?.into(),
            EventForm::Plain => self.renew_plain(&mut message, text, id),
            EventForm::None => message.body = Bytes::from(text.to_owned()),
        }
        let event = self.decode(&message)?;
        let mut delivery_headers = self.delivery_headers.clone().next_round(now);
        if let Some(old) = &self.delivery_headers.recipient {
            if event.id == old.event_id {
                return Err(format!("its id would stay {:?}: the rules find it where it cannot be changed", event.id));
            }
            delivery_headers.recipient = Some(Recipient {
                plugin: old.plugin.clone(),
                idempotency_key: event.idempotency_key(&old.plugin),
                event_id: event.id.clone(),
                event_type: event.event_type.clone(),
            });
            delivery_headers.replaces = Some(old.event_id.clone());
        }
        Ok(EditedEvent { delivery_headers, message })
    }

    fn decode(&self, message: &Message) -> Result<Event, String> {
        let arrived = Arrived {
            message,
            exchange: &self.delivery_headers.exchange,
            routing_key: &self.delivery_headers.routing_key,
        };
        decode(arrived, self.rules).map_err(|error| error.to_string())
    }

    /// Classifies the message the way decoding does.
    fn form(&self) -> EventForm {
        let properties = &self.message.properties;
        let content_type = properties.content_type.as_deref().unwrap_or_default().trim().to_lowercase();
        let says_structured = content_type.starts_with("application/cloudevents+json");
        let has_header = |prefix: &&str| {
            properties.headers.keys().any(|name| name.eq_ignore_ascii_case(&format!("{prefix}specversion")))
        };
        if self.decode(self.message).is_err() {
            return EventForm::None;
        }
        if !says_structured && CLOUD_EVENT_PREFIXES.iter().any(has_header) {
            return EventForm::Binary;
        }
        let whole = serde_json::from_slice::<&RawValue>(&self.message.body).ok();
        let has_version = whole.is_some_and(|whole| member(whole, "specversion").is_some());
        if says_structured || has_version { EventForm::Structured } else { EventForm::Plain }
    }

    /// Writes the id to the `message_id` property, and also to the place where the rules found the old one.
    fn renew_plain(&self, message: &mut Message, text: &str, id: &str) {
        let mut body = text.to_owned();
        let properties = &mut message.properties;
        let has_text = |property: &Option<String>| property.as_deref().is_some_and(|text| !text.is_empty());
        for place in &self.rules.id {
            match place {
                Finder::Pointer(path) => {
                    let Some(range) = scalar_at(text, path) else { continue };
                    body.replace_range(range, &quoted(id));
                }
                Finder::Header(name) => {
                    let Some(value) = properties.headers.get_mut(name) else { continue };
                    *value = Value::from(id);
                }
                Finder::Property(Property::CorrelationId) if has_text(&properties.correlation_id) => {
                    properties.correlation_id = Some(id.to_owned());
                }
                Finder::Property(Property::MessageId) if has_text(&properties.message_id) => {}
                Finder::Property(_) | Finder::Exchange | Finder::RoutingKey => continue,
            }
            break;
        }
        properties.message_id = Some(id.to_owned());
        message.body = Bytes::from(body);
    }
}

/// Replaces data and id of a structured event.
fn restructure(body: &[u8], data: &str, id: &str) -> Result<String, String> {
    let body = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let whole: &RawValue = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let range = |name| member(whole, name).map(|value| range_of(body, value));
    let mut pastes: Vec<_> = range("id").map(|range| (range, quoted(id))).into_iter().collect();
    if let Some(range) = range("data") {
        pastes.push((range, data.to_owned()));
    } else {
        // A structured event always has other members, so the trailing comma is valid.
        let first = range_of(body, whole).start + 1;
        pastes.push((first..first, format!("\"data\":{data},")));
    }
    // Start from the end, so that the earlier ranges stay valid.
    pastes.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut body = body.to_owned();
    for (range, text) in pastes {
        body.replace_range(range, &text);
    }
    Ok(body)
}

/// Returns a member of a JSON object. The last of duplicate names wins, as in decoding.
fn member<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    serde_json::from_str::<BTreeMap<String, &RawValue>>(object.get()).ok()?.remove(name)
}

/// Finds the range of a text, number or boolean.
fn scalar_at(json: &str, path: &[String]) -> Option<Range<usize>> {
    let whole: &RawValue = serde_json::from_str(json).ok()?;
    let value = path.iter().try_fold(whole, |value, name| member(value, name))?;
    let is_scalar = !matches!(value.get().as_bytes().first(), Some(b'{' | b'[' | b'n') | None) && value.get() != "\"\"";
    is_scalar.then(|| range_of(json, value))
}

/// Returns the position of `value` in `json`. `value` must have been parsed out of `json`, so that it borrows
/// from it.
fn range_of(json: &str, value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr().addr() - json.as_ptr().addr();
    start..start + value.get().len()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use delivery::Fault;

    use super::*;

    fn delivery_headers() -> DeliveryHeaders {
        DeliveryHeaders {
            recipient: Some(Recipient {
                plugin: "email".to_owned(),
                event_id: "old".to_owned(),
                event_type: "E".to_owned(),
                idempotency_key: "old key".to_owned(),
            }),
            attempts: 8,
            fault: Some(Fault::new("retry", "away")),
            given_up: Some("attempts-used-up".to_owned()),
            last_at: 2,
            routing_key: String::new(),
            ..DeliveryHeaders::new("orders".to_owned(), "order.created".to_owned(), 1)
        }
    }

    fn check(message: &Message, delivery_headers: &DeliveryHeaders, rules: &Rules, text: &str) -> EditedEvent {
        Original { delivery_headers, message, rules }.succeed(text, "new", 9).unwrap()
    }

    fn body(edited: &EditedEvent) -> &str {
        std::str::from_utf8(&edited.message.body).unwrap()
    }

    #[test]
    fn a_plain_event_is_the_same_but_for_its_data_and_id() {
        let mut message = Message::json(r#"{"event":"E","order_id":1}"#);
        message.properties.message_id = Some("old".to_owned());
        message.properties.headers.insert("x-foreign".to_owned(), "kept".into());
        let text = r#"{"zeta": 12345678901234567890123, "event": "E", "id": 17}"#;
        let next = check(&message, &delivery_headers(), &Rules::default(), text);
        assert_eq!(body(&next), text, "the id in the data is not the event's");
        assert_eq!(next.message.properties.message_id.as_deref(), Some("new"));
        assert_eq!(next.message.properties.headers, message.properties.headers);
        let recipient = next.delivery_headers.recipient.unwrap();
        assert_eq!((recipient.event_id.as_str(), recipient.plugin.as_str()), ("new", "email"));
        assert_ne!(recipient.idempotency_key, "old key");
        assert_eq!(
            (next.delivery_headers.replaces.as_deref(), next.delivery_headers.attempts, next.delivery_headers.round),
            (Some("old"), 0, 2)
        );
        assert_eq!(next.delivery_headers.history, ["1: retry (attempts: 8): away"]);
    }

    #[test]
    fn the_id_is_renewed_where_the_rules_find_it() {
        let rules = |places: &[&str]| {
            let id = places.iter().map(|place| place.parse().unwrap()).collect();
            Rules { id, ..Rules::default() }
        };
        let text = r#"{"event":"E","meta":{"id":"old","n":1.0}}"#;
        let mut message = Message::json(text);
        let next = check(&message, &delivery_headers(), &rules(&["/meta/id"]), text);
        assert_eq!(body(&next), r#"{"event":"E","meta":{"id":"new","n":1.0}}"#);
        assert_eq!(next.message.properties.message_id.as_deref(), Some("new"));

        message.properties.headers.insert("x-id".to_owned(), "old".into());
        let next = check(&message, &delivery_headers(), &rules(&["/absent", "header:x-id", "/meta/id"]), text);
        assert_eq!(next.message.properties.headers["x-id"], "new".into());
        assert_eq!(body(&next), text);

        message.properties.app_id = Some("old".to_owned());
        let fixed = rules(&["app_id"]);
        let original = Original { delivery_headers: &delivery_headers(), message: &message, rules: &fixed };
        assert!(original.succeed(text, "new", 9).unwrap_err().contains("cannot be changed"));
    }

    #[test]
    fn a_structured_event_keeps_every_other_byte() {
        let event = r#"{ "specversion":"1.0", "data":{"a" : 1}, "big":1e400,"id":"old","source":"s","type":"E" }"#;
        let message = Message::json(event);
        let (delivery_headers, rules) = (delivery_headers(), Rules::default());
        let original = Original { delivery_headers: &delivery_headers, message: &message, rules: &rules };
        assert_eq!(original.text().unwrap(), "{\n  \"a\": 1\n}\n");
        let next = check(&message, &delivery_headers, &rules, "[2.50]");
        assert_eq!(body(&next), event.replace(r#"{"a" : 1}"#, "[2.50]").replace("old", "new"));
        let empty = Message::json(r#" {"specversion":"1.0","id":"old","source":"s","type":"E"}"#);
        let next = check(&empty, &delivery_headers, &rules, "7");
        assert_eq!(body(&next), r#" {"data":7,"specversion":"1.0","id":"new","source":"s","type":"E"}"#);
    }

    #[test]
    fn a_binary_event_has_its_id_in_a_header() {
        let mut message = Message::json(r#"{"specversion":"mine"}"#);
        for (name, value) in [("specversion", "1.0"), ("id", "old"), ("source", "s"), ("type", "E")] {
            message.properties.headers.insert(format!("ce-{name}"), value.into());
        }
        let next = check(&message, &delivery_headers(), &Rules::default(), r#"{"id":"mine"}"#);
        assert_eq!(body(&next), r#"{"id":"mine"}"#);
        assert_eq!(next.message.properties.headers["ce-id"], "new".into());
        assert_eq!(next.message.properties.headers.len(), 4);
    }

    #[test]
    fn what_was_no_event_is_edited_as_a_whole_and_must_become_one() {
        let delivery_headers = DeliveryHeaders { recipient: None, ..delivery_headers() };
        let (message, rules) = (Message::json(r#"{"event":"E""#), Rules::default());
        let original = Original { delivery_headers: &delivery_headers, message: &message, rules: &rules };
        assert_eq!(original.text().unwrap(), "{\"event\":\"E\"\n");
        assert!(original.succeed(r#"{"event":"E""#, "new", 9).unwrap_err().contains("no JSON"));
        assert!(original.succeed("{}", "new", 9).unwrap_err().contains("what type of event"));
        let next = original.succeed(r#"{"event":"E"}"#, "new", 9).unwrap();
        assert_eq!(
            (body(&next), &next.delivery_headers.recipient, &next.delivery_headers.replaces),
            (r#"{"event":"E"}"#, &None, &None)
        );
        let bytes = Message::json(vec![0xff]);
        assert!(Original { message: &bytes, ..original }.text().is_err());
    }
}
