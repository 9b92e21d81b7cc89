//! A message is an event as bytes and headers on a queue.
//!
//! It carries every AMQP 0-9-1 property and every type of header value that RabbitMQ knows, so
//! that a message which passes through the host loses nothing on the way
//! (<https://www.rabbitmq.com/amqp-0-9-1-errata#section_3>).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Headers by name.
pub type Headers = BTreeMap<String, Value>;

/// What is published, and what comes back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Any bytes.
    pub body: Bytes,
    /// What is said about them.
    pub properties: Properties,
}

/// The properties of AMQP 0-9-1's class `basic`. Messages are always published as persistent,
/// so `delivery-mode` is not among them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// MIME type of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// MIME content encoding of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Application headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Headers,
    /// 0 to 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Application use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Application use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Time to live in milliseconds, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Application use; the plain-JSON rules take it for the event's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// Application use; the plain-JSON rules take it for the event's type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub message_type: Option<String>,
    /// RabbitMQ refuses any but the name of the publishing connection's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Application use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// Not for applications, but carried along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

/// A header's value, with its exact AMQP type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// No value.
    Void,
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`
    I64(i64),
    /// `f`; as bits, because JSON has no NaN.
    F32(u32),
    /// `d`; as bits, because JSON has no NaN.
    F64(u64),
    /// `D`: scale and unscaled value.
    Decimal(u8, u32),
    /// `S` that is UTF-8, as practically all are.
    Text(String),
    /// `S` that is not.
    LongString(Vec<u8>),
    /// `x`
    Bytes(Vec<u8>),
    /// `T`, seconds since 1970.
    Timestamp(u64),
    /// `A`
    List(Vec<Value>),
    /// `F`
    Table(Headers),
}

impl Value {
    /// The value as text, where it has an obvious one (text, numbers, booleans).
    pub fn to_text(&self) -> Option<String> {
        Some(match self {
            Self::Text(text) => text.clone(),
            Self::Bool(value) => value.to_string(),
            Self::I8(value) => value.to_string(),
            Self::U8(value) => value.to_string(),
            Self::I16(value) => value.to_string(),
            Self::U16(value) => value.to_string(),
            Self::I32(value) => value.to_string(),
            Self::U32(value) => value.to_string(),
            Self::I64(value) => value.to_string(),
            Self::F32(bits) => f32::from_bits(*bits).to_string(),
            Self::F64(bits) => f64::from_bits(*bits).to_string(),
            Self::Timestamp(seconds) => seconds.to_string(),
            Self::Void | Self::Decimal(..) | Self::LongString(_) | Self::Bytes(_) | Self::List(_) | Self::Table(_) => {
                return None;
            }
        })
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Message {
    /// A message of JSON text.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            properties: Properties { content_type: Some("application/json".to_owned()), ..Properties::default() },
        }
    }

    /// Makes a message that came from a publisher fit to be published again by somebody else,
    /// to one place only: `user-id` (which must name the connection's own user), `expiration`
    /// (which would delete it from where it is kept) and the headers `CC` and `BCC` (which would
    /// route copies elsewhere) move to `x-original-…` headers. RabbitMQ's own dead-lettering
    /// does the like (<https://www.rabbitmq.com/docs/dlx#effects>).
    pub fn defuse(&mut self) {
        let properties = &mut self.properties;
        let moved = [
            ("x-original-user-id", properties.user_id.take().map(Value::Text)),
            ("x-original-expiration", properties.expiration.take().map(Value::Text)),
            ("x-original-cc", properties.headers.remove("CC")),
            ("x-original-bcc", properties.headers.remove("BCC")),
        ];
        for (name, value) in moved {
            if let Some(value) = value {
                properties.headers.insert(name.to_owned(), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defusing_moves_what_would_act_on_a_second_publish() {
        let mut message = Message::json("{}");
        message.properties.user_id = Some("alice".to_owned());
        message.properties.expiration = Some("1000".to_owned());
        message.properties.headers.insert("CC".to_owned(), Value::List(vec!["other".into()]));
        message.properties.headers.insert("x-kept".to_owned(), Value::F64(f64::NAN.to_bits()));
        message.defuse();

        assert_eq!(message.properties.user_id, None);
        assert_eq!(message.properties.expiration, None);
        let names: Vec<_> = message.properties.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["x-kept", "x-original-cc", "x-original-expiration", "x-original-user-id"]);
    }

    #[test]
    fn properties_survive_json() {
        let mut properties = Properties { message_type: Some("OrderCreated".to_owned()), ..Properties::default() };
        properties.headers.insert("nan".to_owned(), Value::F64(f64::NAN.to_bits()));
        properties.headers.insert("raw".to_owned(), Value::LongString(vec![0xff, 0]));
        properties.headers.insert("list".to_owned(), Value::List(vec![Value::Void, Value::Decimal(2, 314)]));
        let json = serde_json::to_string(&properties).unwrap();
        assert_eq!(serde_json::from_str::<Properties>(&json).unwrap(), properties);
    }
}
