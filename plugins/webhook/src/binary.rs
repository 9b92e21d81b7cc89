//! Attributes as headers (CloudEvents 1.0, HTTP binding, binary content mode).

use std::fmt::Write as _;

use notify_plugin::Event;

use crate::structured::extensions;

pub(crate) fn headers(event: &Event) -> Vec<(String, String)> {
    let own = [("specversion", "1.0"), ("id", &*event.id), ("source", &*event.source), ("type", &*event.event_type)];
    let optional = [("subject", &event.subject), ("time", &event.time)];
    let optional = optional.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let all = own.into_iter().chain(optional).chain(extensions(event));
    all.map(|(name, value)| (format!("ce-{name}"), encode(value))).collect()
}

/// Percent-encodes a space, `"`, `%` and everything except printable ASCII (HTTP binding, 3.1.3.2).
fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'"' | b'%' => push(&mut encoded, byte),
            b'!'..=b'~' => encoded.push(char::from(byte)),
            _ => push(&mut encoded, byte),
        }
    }
    encoded
}

fn push(encoded: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(encoded, "%{byte:02X}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::event;

    #[test]
    fn attributes_are_headers() {
        let event = Event { extensions: vec![("traceparent".to_owned(), "00-ab".to_owned())], ..event() };
        let headers: Vec<_> = headers(&event).iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            headers,
            [
                "ce-specversion: 1.0",
                "ce-id: e-1",
                "ce-source: /shop",
                "ce-type: OrderCreated",
                "ce-subject: 4711",
                "ce-time: 2026-01-02T03:04:05Z",
                "ce-traceparent: 00-ab",
            ]
        );
    }

    #[test]
    fn what_a_header_cannot_hold_is_percent_encoded() {
        // The first is the specification's own example.
        for (value, encoded) in [
            ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("a\r\nb: c", "a%0D%0Ab:%20c"),
            ("100% \"sure\"", "100%25%20%22sure%22"),
            ("\u{7f}\u{0}~!", "%7F%00~!"),
            ("", ""),
        ] {
            assert_eq!(encode(value), encoded);
        }
    }
}
