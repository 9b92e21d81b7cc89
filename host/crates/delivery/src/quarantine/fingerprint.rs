//! A fingerprint tells messages apart, and stays the same each time the broker offers a message again.

use std::io::Read;

use broker::{Headers, Message, Properties};
use serde::{Deserialize, Serialize};
use state::digest::Digest;

/// Identifies one message in one queue. Messages with the same content share a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Fingerprint(Digest);

impl Fingerprint {
    pub(super) fn of(queue: &str, exchange: &str, routing_key: &str, message: &Message) -> Self {
        let headers: Headers = message
            .properties
            .headers
            .iter()
            .filter(|(name, _)| !is_of_the_broker(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let properties = Properties { headers, ..message.properties.clone() };
        // Maps serialize in the order of their keys. If the properties cannot be serialized, the other parts still
        // tell messages apart.
        let properties = serde_json::to_vec(&properties).unwrap_or_default();
        let parts = [queue.as_bytes(), exchange.as_bytes(), routing_key.as_bytes(), &properties];
        let mut head = Vec::new();
        for part in parts {
            // Prefix each part with its length, so that bytes cannot move from one part to the next unnoticed.
            head.extend((part.len() as u64).to_be_bytes());
            head.extend(part);
        }
        let content = head.chain(&*message.body);
        // Reading from memory cannot fail.
        Self(Digest::of_all(content).unwrap_or_else(|_| Digest::of(&head)))
    }

    /// Returns the short form of the digest, for the log.
    pub(super) fn short(&self) -> String {
        self.0.short()
    }
}

/// Returns whether the broker itself updates this header.
fn is_of_the_broker(name: &str) -> bool {
    matches!(name, "x-death" | "x-delivery-count" | "x-acquired-count")
        || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-")
}

#[cfg(test)]
impl Fingerprint {
    pub(super) fn of_number(number: u8) -> Self {
        Self(Digest::of(&[number]))
    }
}

#[cfg(test)]
mod tests {
    use broker::Value;

    use super::*;

    #[test]
    fn it_is_the_same_when_the_message_comes_again_and_another_for_another_message() {
        let mut message = Message::json("{}");
        message.properties.headers.insert("theirs".to_owned(), Value::F64(f64::NAN.to_bits()));
        let first = Fingerprint::of("q", "e", "k", &message);
        let mut again = message.clone();
        for name in ["x-delivery-count", "x-acquired-count", "x-death", "x-first-death-queue", "x-last-death-reason"] {
            again.properties.headers.insert(name.to_owned(), Value::I64(3));
        }
        assert_eq!(Fingerprint::of("q", "e", "k", &again), first);

        let mut other_header = message.clone();
        other_header.properties.headers.insert("x-notify-attempts".to_owned(), Value::I64(1));
        let mut other_id = message.clone();
        other_id.properties.message_id = Some("1".to_owned());
        let other_body = Message { body: "[]".into(), ..message.clone() };
        let others = [
            Fingerprint::of("q2", "e", "k", &message),
            Fingerprint::of("q", "e2", "k", &message),
            Fingerprint::of("q", "e", "k2", &message),
            Fingerprint::of("q", "ek", "", &message),
            Fingerprint::of("q", "e", "k", &other_header),
            Fingerprint::of("q", "e", "k", &other_id),
            Fingerprint::of("q", "e", "k", &other_body),
        ];
        assert!(others.iter().all(|other| *other != first));
    }
}
