//! CloudEvents 1.0 over AMQP, in two modes: structured, as JSON
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>), and
//! binary, with the attributes in headers
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md>).

use std::collections::BTreeMap;

use broker::{Properties, Value};
use contract::types;
use serde_json::value::RawValue;

use crate::Event;
use crate::arrived::{DecodeError, Members, scalar, text};

/// Header prefixes of the binary mode. `cloudEvents:` and `cloudEvents_` are the AMQP binding's; `ce-` is HTTP's, and
/// widely used.
const HEADER_PREFIXES: [&str; 3] = ["cloudEvents:", "cloudEvents_", "ce-"];
/// The data of an event that has none.
const NO_DATA: &str = "null";

/// Whether the content type is that of structured CloudEvents.
pub(super) fn is_structured(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/cloudevents+json")
}

/// Reads the attributes from the headers; `None` if they are not in the binary mode.
pub(super) fn binary_attributes(properties: &Properties) -> Option<BTreeMap<String, String>> {
    HEADER_PREFIXES.into_iter().find_map(|prefix| {
        let attributes: BTreeMap<_, _> = properties
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_lowercase(), attribute_text(value)?)))
            .collect();
        attributes.contains_key("specversion").then_some(attributes)
    })
}

fn attribute_text(value: &Value) -> Option<String> {
    match value {
        // An attribute of type Timestamp may arrive as an AMQP timestamp.
        Value::Timestamp(seconds) => rfc3339(*seconds),
        other => other.to_text(),
    }
}

/// Formats seconds since 1970 as RFC 3339; `None` after the year 9999.
pub(super) fn rfc3339(seconds: u64) -> Option<String> {
    let timestamp = jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    Some(timestamp.to_string())
}

pub(super) fn from_binary(
    attributes: &BTreeMap<String, String>,
    properties: &Properties,
    body: &[u8],
) -> Result<Event, DecodeError> {
    let data = if body.is_empty() {
        NO_DATA.to_owned()
    } else {
        let json = text(body)?;
        let _: &RawValue = serde_json::from_str(json).map_err(|error| {
            let content_type = properties.content_type.as_deref().unwrap_or("unknown");
            DecodeError::NotJson(format!("{error} (its content type is {content_type})"))
        })?;
        json.to_owned()
    };
    event(attributes.iter().map(|(name, value)| (name.clone(), value.clone())).collect(), data)
}

pub(super) fn from_structured(members: &Members<'_>) -> Result<Event, DecodeError> {
    if members.contains_key("data_base64") {
        let problem = "its data is binary (data_base64), and plugins take JSON";
        return Err(DecodeError::BadCloudEvent(problem.to_owned()));
    }
    let data = members.get("data").map_or_else(|| NO_DATA.to_owned(), |data| data.get().to_owned());
    let attributes = members
        .iter()
        .filter(|(name, _)| *name != "data")
        .filter_map(|(name, value)| Some((name.clone().into_owned(), scalar(value)?)))
        .collect();
    event(attributes, data)
}

fn event(mut attributes: BTreeMap<String, String>, data: String) -> Result<Event, DecodeError> {
    let bad = |problem: String| DecodeError::BadCloudEvent(problem);
    match attributes.remove("specversion").as_deref() {
        Some("1.0") => {}
        Some(other) => return Err(bad(format!("its specversion is {other:?}, and this host knows 1.0"))),
        None => return Err(bad("its specversion is missing".to_owned())),
    }
    let mut required = |name: &str| {
        attributes.remove(name).filter(|value| !value.is_empty()).ok_or_else(|| bad(format!("its {name} is missing")))
    };
    let (id, source, event_type) = (required("id")?, required("source")?, required("type")?);
    attributes.remove("datacontenttype");
    let subject = attributes.remove("subject");
    let time = attributes.remove("time");
    let extensions = attributes.into_iter().collect();
    Ok(Event::new(types::Event { id, source, event_type, subject, time, data, extensions }, true))
}
