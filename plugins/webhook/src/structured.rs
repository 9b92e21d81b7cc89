//! An event as one JSON object (CloudEvents 1.0, JSON event format).

use notify_plugin::Event;
use serde::ser::{SerializeMap as _, Serializer as _};

/// Names that cannot be extensions, whatever the publisher sends.
const RESERVED: [&str; 9] =
    ["data", "data_base64", "datacontenttype", "id", "source", "specversion", "subject", "time", "type"];

/// Returns the extensions with valid names, which consist of `a-z` and `0-9`.
pub(crate) fn extensions(event: &Event) -> impl Iterator<Item = (&str, &str)> {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let extensions = event.extensions.iter().map(|(name, value)| (&**name, &**value));
    extensions.filter(move |(name, _)| is_name(name) && !RESERVED.contains(name))
}

/// Returns the event as JSON, with its data unchanged.
pub(crate) fn body(event: &Event) -> String {
    let mut body = attributes(event);
    // Remove the closing brace of the attributes; it follows the data.
    body.pop();
    body.push_str(",\"data\":");
    body.push_str(&event.data);
    body.push('}');
    body
}

fn attributes(event: &Event) -> String {
    let mut json = Vec::with_capacity(512 + event.data.len());
    write(event, &mut json).expect("texts are written as JSON into memory");
    String::from_utf8(json).expect("JSON is UTF-8")
}

fn write(event: &Event, json: &mut Vec<u8>) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::new(json);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("specversion", "1.0")?;
    map.serialize_entry("id", &event.id)?;
    map.serialize_entry("source", &event.source)?;
    map.serialize_entry("type", &event.event_type)?;
    map.serialize_entry("datacontenttype", "application/json")?;
    for (name, value) in [("subject", &event.subject), ("time", &event.time)] {
        if let Some(value) = value {
            map.serialize_entry(name, value)?;
        }
    }
    for (name, value) in extensions(event) {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::event;

    #[test]
    fn the_data_is_not_written_anew() {
        let body = body(&event());
        assert_eq!(
            body,
            r#"{"specversion":"1.0","id":"e-1","source":"/shop","type":"OrderCreated","datacontenttype":"application/json","subject":"4711","time":"2026-01-02T03:04:05Z","data":{"product": "iPhone 15",  "price": 1.50}}"#
        );
    }

    #[test]
    fn attributes_are_escaped_and_extensions_are_only_those() {
        let extension = |name: &str| (name.to_owned(), "\"x\"\n".to_owned());
        let extensions = ["traceparent", "data", "id", "Upper", "with-dash", "", "a1"].map(extension).to_vec();
        let event = Event {
            id: "\"}, {\"\u{0}ä".to_owned(),
            subject: None,
            time: None,
            data: "[1e400]".to_owned(),
            extensions,
            ..event()
        };
        let body = body(&event);
        let parsed: serde_json::Value = serde_json::from_str(&body.replace("1e400", "1")).expect("it is JSON");
        let names: Vec<_> = parsed.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(names, ["a1", "data", "datacontenttype", "id", "source", "specversion", "traceparent", "type"]);
        assert_eq!(parsed["id"], event.id);
        assert_eq!(parsed["traceparent"], "\"x\"\n");
        assert!(body.ends_with(r#","data":[1e400]}"#));
    }
}
