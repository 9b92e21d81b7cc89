//! Builds the dead letter of a message whose properties could not be read in full. It keeps the body byte for
//! byte, the readable properties, and all properties as raw bytes.
//!
//! RabbitMQ accepts properties only if they fit into one frame, and the raw bytes may fill one by themselves.
//! If they do not fit beside the delivery headers, they become the body of a second dead letter.

use broker::{Delivery, Message, Properties, Unreadable, Value};
use event::{Arrived, Event, Rules, decode};
use sha2::{Digest as _, Sha256};

use crate::delivery_headers::DeliveryHeaders;
use crate::policy::Fault;

/// The raw properties; see [`Unreadable::properties`].
const RAW_PROPERTIES: &str = "x-notify-raw-properties";
/// SHA-256 in hexadecimal of the raw properties in a second dead letter. Both letters carry it.
const RAW_PROPERTIES_SHA256: &str = "x-notify-raw-properties-sha256";

/// Decodes the event in a message. The error says why there is none.
pub(super) fn event_of(delivery: &Delivery, arrived: Arrived<'_>, rules: &Rules) -> Result<Event, Fault> {
    match &delivery.unreadable {
        Some(unreadable) => Err(fault(unreadable)),
        None => decode(arrived, rules).map_err(|error| Fault::new(error.code(), error.to_string())),
    }
}

fn fault(unreadable: &Unreadable) -> Fault {
    Fault::new("unreadable-properties", unreadable.problem.clone())
}

/// Returns the dead letters to write, in this order. A crash between them repeats the first and loses nothing.
/// `headers_bytes_max` is the room for the headers of one letter.
pub(super) fn letters(
    message: &Message,
    unreadable: &Unreadable,
    delivery_headers: &DeliveryHeaders,
    headers_bytes_max: usize,
) -> Vec<Message> {
    let raw = &unreadable.properties;
    let mut letter = delivery_headers.write(message);
    let headers = &mut letter.properties.headers;
    // Keep half of the room for the delivery headers, and for readable headers as far as they fit.
    if raw.len() <= headers_bytes_max / 2 {
        headers.insert(RAW_PROPERTIES.to_owned(), Value::Bytes(raw.to_vec()));
        return vec![letter];
    }
    let digest = format!("{:x}", Sha256::digest(raw));
    headers.insert(RAW_PROPERTIES_SHA256.to_owned(), digest.as_str().into());
    let raw_properties = Message {
        body: raw.clone(),
        properties: Properties { content_type: Some("application/octet-stream".to_owned()), ..Properties::default() },
    };
    let reason = "the body is the properties, as they came, of another dead letter, which names the same digest: they \
                  did not fit beside its own";
    let delivery_headers =
        DeliveryHeaders { fault: Some(Fault::new("raw-properties", reason)), ..delivery_headers.clone() };
    let mut raw_properties = delivery_headers.write(&raw_properties);
    raw_properties.properties.headers.insert(RAW_PROPERTIES_SHA256.to_owned(), digest.as_str().into());
    vec![raw_properties, letter]
}

/// Returns the raw properties that a dead letter carries in its headers.
pub fn raw_properties(message: &Message) -> Option<&[u8]> {
    match message.properties.headers.get(RAW_PROPERTIES) {
        Some(Value::Bytes(raw)) => Some(raw),
        _ => None,
    }
}

/// Returns the digest that links a dead letter to the one with its raw properties.
pub fn raw_properties_sha256(message: &Message) -> Option<String> {
    message.properties.headers.get(RAW_PROPERTIES_SHA256).and_then(Value::to_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery_headers(fault: Fault) -> DeliveryHeaders {
        DeliveryHeaders {
            fault: Some(fault),
            given_up: Some("undecodable".to_owned()),
            ..DeliveryHeaders::new("orders".to_owned(), "order.created".to_owned(), 1)
        }
    }

    #[test]
    fn raw_properties_go_beside_ours_where_they_fit_and_into_a_letter_of_their_own_where_they_do_not() {
        let mut message = Message::json("{}");
        message.properties.headers.insert("good".to_owned(), "kept".into());
        for (size, count) in [(100, 1), (5_000, 1), (5_001, 2), (130_000, 2)] {
            let unreadable = Unreadable { problem: "its header".to_owned(), properties: vec![7; size].into() };
            let letters = letters(&message, &unreadable, &delivery_headers(fault(&unreadable)), 10_000);
            assert_eq!(letters.len(), count, "{size}");
            let letter = letters.last().unwrap();
            assert_eq!(letter.body, message.body);
            assert_eq!(letter.properties.headers["good"], "kept".into());
            assert_eq!(letter.properties.headers["x-notify-code"], "unreadable-properties".into());
            assert_eq!(raw_properties(letter).map(<[u8]>::len), Some(size).filter(|_| count == 1));
            if let [raw, letter] = &letters[..] {
                assert_eq!(raw.body, unreadable.properties);
                assert_eq!(raw_properties_sha256(raw), raw_properties_sha256(letter));
                assert!(raw_properties_sha256(raw).is_some());
                assert_eq!(raw.properties.headers["x-notify-code"], "raw-properties".into());
            }
        }
    }
}
