//! A user's own event, sent as JSON without changes.
//!
//! order-cli reads only the type, for the routing key, and the id, so that sending the same file twice sends the same
//! events. It looks for both in the same members as the host.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// Maximum bytes of AMQP's `message-id` and `type`.
const SHORT_STRING_BYTES_MAX: usize = 255;

/// The attributes that an event carries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// `event`, else `type`.
    pub(crate) kind: Option<String>,
    /// `event_id`, else `id`.
    pub(crate) id: Option<String>,
    /// Whether it uses the structured mode of CloudEvents.
    pub(crate) structured: bool,
}

impl Event {
    /// Reads JSON text. The error is a sentence without a line number.
    pub(crate) fn read(json: &[u8]) -> Result<Self, String> {
        // The values stay unparsed, so nesting of any depth and numbers of any size pass.
        let keys: HashMap<String, &RawValue> = serde_json::from_slice(json).map_err(|error| explain(&error))?;
        let text = |key: &str| {
            let text: String = serde_json::from_str(keys.get(key)?.get()).ok()?;
            (!text.is_empty() && text.len() <= SHORT_STRING_BYTES_MAX).then_some(text)
        };
        let structured = keys.contains_key("specversion");
        // CloudEvents attributes have fixed names; `event` would be an extension.
        let (types, ids): (&[_], &[_]) =
            if structured { (&["type"], &["id"]) } else { (&["event", "type"], &["event_id", "id"]) };
        Ok(Self { kind: types.iter().copied().find_map(text), id: ids.iter().copied().find_map(text), structured })
    }

    /// Returns the routing key: `order.created` for `OrderCreated`, other styles unchanged.
    pub(crate) fn routing_key(&self) -> Option<String> {
        let event_type = self.kind.as_deref()?;
        let is_camel_case = event_type.starts_with(|first: char| first.is_ascii_uppercase())
            && event_type.chars().all(|letter| letter.is_ascii_alphanumeric());
        Some(if is_camel_case { dotted(event_type) } else { event_type.to_owned() })
    }
}

/// Turns `HTTPRequestFailed` into `http.request.failed`.
fn dotted(camel_case: &str) -> String {
    let letters: Vec<char> = camel_case.chars().collect();
    let mut words = String::with_capacity(camel_case.len() + 4);
    for (at, letter) in letters.iter().enumerate() {
        let after_lower = at > 0 && !letters[at - 1].is_ascii_uppercase();
        let before_lower = letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        if at > 0 && letter.is_ascii_uppercase() && (after_lower || before_lower) {
            words.push('.');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

/// Drops the parser's line number, which counts within the event and is always 1.
fn explain(error: &serde_json::Error) -> String {
    let sentence = error.to_string();
    let problem = sentence.rsplit_once(" at line ").map_or(sentence.as_str(), |(problem, _)| problem);
    match error.classify() {
        serde_json::error::Category::Data => format!("an event is a JSON object, and this is not ({problem})"),
        _ => format!("not JSON: {problem} at column {}", error.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routing_key_comes_from_the_type() {
        for (json, expected) in [
            (r#"{"event":"OrderCreated"}"#, Some("order.created")),
            (r#"{"type":"OrderItemAdded"}"#, Some("order.item.added")),
            (r#"{"type":"ignored","event":"order.paid"}"#, Some("order.paid")),
            (r#"{"event":7,"type":"HTTPRequestFailed"}"#, Some("http.request.failed")),
            (r#"{"event":"","type":"com.example.OrderCreated"}"#, Some("com.example.OrderCreated")),
            (r#"{"specversion":"1.0","event":"x","type":"order_created"}"#, Some("order_created")),
            (r#"{"event":"V2Order"}"#, Some("v2.order")),
            (r#"{"data":{"event":"OrderCreated"}}"#, None),
            ("{}", None),
        ] {
            assert_eq!(Event::read(json.as_bytes()).unwrap().routing_key().as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn an_event_keeps_the_id_it_has() {
        for (json, expected) in [
            (r#"{"event_id":"a","id":"b"}"#, Some("a")),
            (r#"{"id":"b"}"#, Some("b")),
            (r#"{"id":7}"#, None),
            (r#"{"specversion":"1.0","event_id":"a","id":"b"}"#, Some("b")),
        ] {
            assert_eq!(Event::read(json.as_bytes()).unwrap().id.as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn values_of_any_depth_and_size_are_passed_on() {
        let deep = format!(r#"{{"event":"E","deep":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(Event::read(deep.as_bytes()).is_ok());
        assert!(Event::read(br#"{"big":1e999999,"twice":1,"twice":2}"#).is_ok());
    }

    #[test]
    fn what_is_no_event_is_told_in_a_sentence() {
        for (json, expected) in [
            (&b"[1]"[..], "an event is a JSON object, and this is not (invalid type: sequence, expected a map)"),
            (b"{\"a\":}", "not JSON: expected value at column 6"),
            (b"{\"a\":1", "not JSON: EOF while parsing an object at column 6"),
            (b"{} {}", "not JSON: trailing characters at column 4"),
        ] {
            assert_eq!(Event::read(json).unwrap_err(), expected);
        }
        assert!(Event::read(b"{\"a\":\"\xff\"}").unwrap_err().starts_with("not JSON: invalid unicode"));
    }
}
