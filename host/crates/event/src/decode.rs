//! Decodes a message into an event. Tries structured CloudEvents, binary CloudEvents, and plain JSON by the operator's
//! rules, in this order.

use broker::{Headers, Value};
use serde_json::value::RawValue;

use crate::arrived::{Arrived, DecodeError, members, text};
use crate::plain::Rules;
use crate::trace_context::{self, PARENT, STATE};
use crate::{Event, cloudevents, plain};

/// Decodes a message into an event.
pub fn decode(arrived: Arrived<'_>, rules: &Rules) -> Result<Event, DecodeError> {
    let mut event = find(arrived, rules)?;
    take_over_trace(&mut event, &arrived.message.properties.headers);
    Ok(event)
}

/// Copies the trace context from the message's own headers, whatever the format. A valid context that the event carries
/// itself wins.
fn take_over_trace(event: &mut Event, headers: &Headers) {
    let header = |name: &str| headers.get(name).and_then(Value::to_text);
    let Some(parent) = header(PARENT).filter(|parent| trace_context::is_parent(parent)) else { return };
    if !event.extension(PARENT).is_some_and(trace_context::is_parent) {
        let extensions = &mut event.attributes_mut().extensions;
        extensions.retain(|(name, _)| name != PARENT && name != STATE);
        extensions.push((PARENT.to_owned(), parent));
        extensions.extend(header(STATE).map(|state| (STATE.to_owned(), state)));
    }
}

fn find(arrived: Arrived<'_>, rules: &Rules) -> Result<Event, DecodeError> {
    let properties = &arrived.message.properties;
    let content_type = properties.content_type.as_deref().unwrap_or_default();
    if let Some(attributes) = cloudevents::binary_attributes(properties) {
        // With binary attributes the headers are the envelope, even if the body looks like a CloudEvent.
        if !cloudevents::is_structured(content_type) {
            return cloudevents::from_binary(&attributes, properties, &arrived.message.body);
        }
    }
    let text = text(&arrived.message.body)?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| DecodeError::NotJson(error.to_string()))?;
    let members = members(raw);
    if cloudevents::is_structured(content_type) || members.as_ref().is_some_and(|all| all.contains_key("specversion")) {
        let members = members.ok_or_else(|| DecodeError::BadCloudEvent("it is not a JSON object".to_owned()))?;
        return cloudevents::from_structured(&members);
    }
    plain::event(arrived, raw, members.as_ref(), rules)
}

#[cfg(test)]
mod tests {
    use broker::{Message, Properties};

    use super::*;

    fn message(body: impl Into<bytes::Bytes>) -> Message {
        Message { body: body.into(), properties: Properties::default() }
    }

    fn decode_from(message: &Message, routing_key: &str) -> Result<Event, DecodeError> {
        decode(Arrived { message, exchange: "orders", routing_key }, &Rules::default())
    }

    #[test]
    fn the_tutorials_plain_json_is_an_event() {
        let body = r#"{"event": "OrderCreated", "order_id": "4711", "user_id": "user123", "product": "iPhone 15"}"#;
        let event = decode_from(&message(body), "").unwrap();
        assert_eq!((event.event_type.as_str(), event.subject.as_deref()), ("OrderCreated", Some("4711")));
        assert_eq!((event.source.as_str(), event.data.as_str()), ("orders", body));
        // A redelivery gets the same id.
        assert_eq!(decode_from(&message(body), "").unwrap().id, event.id);
    }

    #[test]
    fn properties_come_before_members_and_members_before_the_routing_key() {
        let mut all = message(r#"{"event":"B","type":"C","event_id":17,"id":"x"}"#);
        assert_eq!(decode_from(&all, "d").unwrap().event_type, "B");
        assert_eq!(decode_from(&all, "d").unwrap().id, "17");
        all.properties.message_type = Some("A".to_owned());
        all.properties.message_id = Some("m".to_owned());
        all.properties.app_id = Some("shop".to_owned());
        all.properties.timestamp = Some(0);
        let event = decode_from(&all, "d").unwrap();
        assert_eq!((event.event_type.as_str(), event.id.as_str(), event.source.as_str()), ("A", "m", "shop"));
        assert_eq!(event.time.as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(decode_from(&message("[1, 2]"), "order.created").unwrap().event_type, "order.created");
        assert_eq!(decode_from(&message("{}"), "").unwrap_err(), DecodeError::NoType);
    }

    #[test]
    fn structured_cloudevents_are_known_by_their_content_type_or_their_specversion() {
        let body = r#"{"specversion":"1.0","id":"1","source":"/shop","type":"order.created","subject":"4711",
            "time":"2026-11-24T10:00:00Z","traceparent":"00-ab","count":3,"data":{"a" : 1.0}}"#;
        let event = decode_from(&message(body), "k").unwrap();
        assert_eq!((event.id.as_str(), event.source.as_str(), event.data.as_str()), ("1", "/shop", r#"{"a" : 1.0}"#));
        let extensions: Vec<_> = event.extensions.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(extensions, ["count=3", "traceparent=00-ab"]);

        let mut wrong = message("[]");
        wrong.properties.content_type = Some("application/cloudevents+json; charset=utf-8".to_owned());
        assert_eq!(decode_from(&wrong, "k").unwrap_err().code(), "bad-cloudevent");
        for (body, problem) in [
            (r#"{"specversion":"1.0","id":"1","type":"t"}"#, "source"),
            (r#"{"specversion":"0.3","id":"1","type":"t","source":"s"}"#, "0.3"),
            (r#"{"specversion":"1.0","id":"","type":"t","source":"s"}"#, "id"),
            (r#"{"specversion":"1.0","id":"1","type":"t","source":"s","data_base64":"AA=="}"#, "data_base64"),
        ] {
            let error = decode_from(&message(body), "k").unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
    }

    #[test]
    fn binary_cloudevents_are_known_by_their_headers() {
        for prefix in ["cloudEvents:", "cloudEvents_", "ce-"] {
            let mut binary = message(r#"{"a":1}"#);
            for (name, value) in [("specversion", "1.0"), ("id", "1"), ("source", "s"), ("type", "t"), ("extra", "e")] {
                binary.properties.headers.insert(format!("{prefix}{name}"), Value::from(value));
            }
            let event = decode_from(&binary, "k").unwrap();
            assert_eq!((event.id.as_str(), event.data.as_str()), ("1", r#"{"a":1}"#), "{prefix}");
            assert_eq!(event.extensions, [("extra".to_owned(), "e".to_owned())]);
        }
    }

    #[test]
    fn a_trace_in_the_messages_own_headers_is_taken_over_whatever_the_format() {
        const ONE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        const OTHER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let structured = |more: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t"{more}}}"#);
        let check = |body: &str, headers: &[(&str, &str)], expected: &[(&str, &str)]| {
            let mut all = message(body.to_owned());
            let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value)));
            all.properties.headers = headers.collect();
            let event = decode_from(&all, "k").unwrap();
            let found: Vec<_> = event.extensions.iter().map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(found, expected, "{body} {:?}", all.properties.headers);
        };
        let both = [(PARENT, ONE), (STATE, "a=1")];
        let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "t")];
        check("{}", &both, &both);
        check(&structured(""), &both, &both);
        check("{}", &[&binary[..], &both].concat(), &both);
        check("{}", &[&binary[..], &[("ce-traceparent", ONE), ("ce-tracestate", "a=1")]].concat(), &both);
        // A context that the event carries itself stays.
        check(&structured(&format!(r#","traceparent":"{OTHER}""#)), &both, &[(PARENT, OTHER)]);
        check("{}", &[&binary[..], &both, &[("ce-traceparent", OTHER)]].concat(), &[(PARENT, OTHER)]);
        check(&structured(r#","traceparent":"00-ab""#), &both, &both);
        check(&structured(r#","traceparent":"00-ab""#), &[], &[(PARENT, "00-ab")]);
        // A state belongs to its parent.
        check(&structured(r#","tracestate":"b=2""#), &both, &both);
        check("{}", &[(STATE, "a=1")], &[]);
        for bad in ["", "00-ab", &ONE.to_uppercase(), &ONE.replace("00-", "ff-")] {
            check("{}", &[(PARENT, bad), (STATE, "a=1")], &[]);
        }
    }

    #[test]
    fn any_bytes_are_an_event_or_an_error_and_nothing_else() {
        let deep = format!(r#"{{"event":"Deep","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(decode_from(&message(deep.clone()), "").unwrap().data, deep);
        assert_eq!(decode_from(&message(r#"{"event":"Big","x":1e999}"#), "").unwrap().event_type, "Big");
        for (body, code) in [
            (&b""[..], "empty"),
            (b"\xff\xfe", "not-utf8"),
            (b"{\"event\":", "not-json"),
            (b"\xef\xbb\xbf{}", "not-json"),
            (b"{} {}", "not-json"),
            (b"   ", "not-json"),
        ] {
            assert_eq!(decode_from(&message(body), "k").unwrap_err().code(), code, "{body:?}");
        }
    }
}
