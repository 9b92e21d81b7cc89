//! A message: an event as bytes and headers on a queue.
//!
//! It carries every AMQP 0-9-1 property and every type of header value that RabbitMQ knows, so that a message which
//! passes through the host loses nothing on the way (<https://www.rabbitmq.com/amqp-0-9-1-errata#section_3>).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Headers by name.
pub type Headers = BTreeMap<String, Value>;

/// A message to publish, or one that was delivered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Any bytes.
    pub body: Bytes,
    /// Properties and headers of the body.
    pub properties: Properties,
}

/// The properties of the AMQP 0-9-1 class `basic`. All messages are published as persistent, so
/// `delivery-mode` is missing here.
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
    /// Priority, 0 to 255.
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
    /// Application use; the plain-JSON rules use it as the event's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// Application use; the plain-JSON rules use it as the event's type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub message_type: Option<String>,
    /// RabbitMQ accepts only the user name of the publishing connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Application use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// Not for applications, but passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

/// A header value with its exact AMQP type.
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
    /// `f`; kept as bits, because JSON has no NaN.
    F32(u32),
    /// `d`; kept as bits, because JSON has no NaN.
    F64(u64),
    /// `D`: scale and unscaled value.
    Decimal(u8, u32),
    /// `S` in UTF-8, as almost all are.
    Text(String),
    /// `S` in any other encoding.
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
    /// Returns the value as text, if it has an obvious form (text, numbers, booleans).
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
    /// Creates a message with a JSON body.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            properties: Properties { content_type: Some("application/json".to_owned()), ..Properties::default() },
        }
    }

    /// Makes a publisher's message safe to publish again under another user, to one destination only.
    /// `user-id` (must name the connection's own user), `expiration` (would delete the message from its new
    /// queue) and the headers `CC` and `BCC` (would route copies elsewhere) move to `x-original-…` headers.
    /// RabbitMQ's own dead-lettering does much the same (<https://www.rabbitmq.com/docs/dlx#effects>).
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

/// Maximum bytes of an AMQP short string; header names and most properties are short strings.
const SHORT_STRING_BYTES_MAX: usize = 255;
/// Maximum depth of nested lists and tables that can be read back: each takes two of the 128
/// levels that `serde_json` accepts.
const DEPTH_MAX: usize = 60;

impl Message {
    /// Returns whether the headers can be read back from a file.
    pub(crate) fn is_shallow(&self) -> bool {
        self.properties.headers.values().all(|value| is_shallow(value, DEPTH_MAX))
    }

    /// Rewrites anything that a broker cannot express, and returns whether it changed something. A
    /// number that is not finite becomes text, and so does a value that is nested too deeply. A
    /// property of more than 255 bytes moves to an `x-original-…` header, and a header name is cut
    /// to 255 bytes. The body stays as it is.
    ///
    /// RabbitMQ never delivers such numbers, but a file can. Text in another encoding grows when it
    /// is converted to UTF-8.
    pub fn make_expressible(&mut self) -> bool {
        let properties = &mut self.properties;
        let mut changed = make_headers_expressible(&mut properties.headers, 0);
        let texts = [
            ("x-original-content-type", &mut properties.content_type),
            ("x-original-content-encoding", &mut properties.content_encoding),
            ("x-original-correlation-id", &mut properties.correlation_id),
            ("x-original-reply-to", &mut properties.reply_to),
            ("x-original-expiration", &mut properties.expiration),
            ("x-original-message-id", &mut properties.message_id),
            ("x-original-type", &mut properties.message_type),
            ("x-original-user-id", &mut properties.user_id),
            ("x-original-app-id", &mut properties.app_id),
            ("x-original-cluster-id", &mut properties.cluster_id),
        ];
        for (name, text) in texts {
            if let Some(long) = text.take_if(|text| text.len() > SHORT_STRING_BYTES_MAX) {
                properties.headers.insert(name.to_owned(), Value::Text(long));
                changed = true;
            }
        }
        changed
    }
}

fn is_shallow(value: &Value, depth_max: usize) -> bool {
    match value {
        Value::List(values) => depth_max > 0 && values.iter().all(|value| is_shallow(value, depth_max - 1)),
        Value::Table(headers) => depth_max > 0 && headers.values().all(|value| is_shallow(value, depth_max - 1)),
        _ => true,
    }
}

/// `depth` is the number of lists and tables around these headers.
fn make_headers_expressible(headers: &mut Headers, depth: usize) -> bool {
    let mut changed = false;
    let long: Vec<_> = headers.keys().filter(|name| name.len() > SHORT_STRING_BYTES_MAX).cloned().collect();
    for name in long {
        if let Some(value) = headers.remove(&name) {
            headers.insert(short_name(&name, headers), value);
            changed = true;
        }
    }
    for value in headers.values_mut() {
        changed |= make_value_expressible(value, depth);
    }
    changed
}

/// Cuts a name to the limit, and appends a number if another header has the short name already.
fn short_name(name: &str, others: &Headers) -> String {
    let begin = |bytes| &name[..name.floor_char_boundary(bytes)];
    // One more candidate than there are other headers, so that at least one is free.
    (1..=others.len() + 1)
        .map(|number| match number {
            1 => begin(SHORT_STRING_BYTES_MAX).to_owned(),
            // 21 bytes: `~` and the 20 digits of the largest number.
            number => format!("{}~{number}", begin(SHORT_STRING_BYTES_MAX - 21)),
        })
        .find(|short| !others.contains_key(short))
        .unwrap_or_default()
}

fn make_value_expressible(value: &mut Value, depth: usize) -> bool {
    let text = match value {
        Value::List(_) | Value::Table(_) if depth >= DEPTH_MAX => {
            Some(serde_json::to_string(value).unwrap_or_default())
        }
        Value::F32(bits) => Some(f32::from_bits(*bits)).filter(|number| !number.is_finite()).map(|it| it.to_string()),
        Value::F64(bits) => Some(f64::from_bits(*bits)).filter(|number| !number.is_finite()).map(|it| it.to_string()),
        Value::List(values) => {
            let mut changed = false;
            for value in values {
                changed |= make_value_expressible(value, depth + 1);
            }
            return changed;
        }
        Value::Table(headers) => return make_headers_expressible(headers, depth + 1),
        Value::Void
        | Value::Bool(_)
        | Value::I8(_)
        | Value::U8(_)
        | Value::I16(_)
        | Value::U16(_)
        | Value::I32(_)
        | Value::U32(_)
        | Value::I64(_)
        | Value::Decimal(..)
        | Value::Text(_)
        | Value::LongString(_)
        | Value::Bytes(_)
        | Value::Timestamp(_) => None,
    };
    let changed = text.is_some();
    if let Some(text) = text {
        *value = Value::Text(text);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_amqp_cannot_express_becomes_text_and_all_else_stays() {
        let nan = || Value::F64(f64::NAN.to_bits());
        let long = "é".repeat(200);
        let mut message = Message::json("{}");
        message.properties.message_id = Some(long.clone());
        message.properties.app_id = Some("kept".to_owned());
        let nested = Value::List(vec![Value::Table([("in".to_owned(), nan())].into()), Value::I8(1)]);
        let other_long = format!("{long}!");
        message.properties.headers = [
            ("nan".to_owned(), nan()),
            ("infinite".to_owned(), Value::F32(f32::NEG_INFINITY.to_bits())),
            ("nested".to_owned(), nested),
            ("fine".to_owned(), Value::F64(1.5_f64.to_bits())),
            (long.clone(), Value::Bool(true)),
            (other_long, Value::Bool(false)),
        ]
        .into();
        assert!(message.make_expressible());
        let headers = &message.properties.headers;
        assert_eq!((&headers["nan"], &headers["infinite"]), (&"NaN".into(), &"-inf".into()));
        let nested = Value::List(vec![Value::Table([("in".to_owned(), "NaN".into())].into()), Value::I8(1)]);
        assert_eq!(headers["nested"], nested);
        assert_eq!(headers["fine"], Value::F64(1.5_f64.to_bits()));
        assert_eq!(headers["x-original-message-id"], long.clone().into());
        assert_eq!((&message.properties.message_id, &message.properties.app_id), (&None, &Some("kept".to_owned())));
        // Both names start alike, and both headers are kept.
        assert_eq!(headers[&long[..254]], Value::Bool(true));
        assert_eq!(headers[&format!("{}~2", &long[..234])], Value::Bool(false));
        assert!(!message.clone().make_expressible(), "there is nothing left to do");
        assert_eq!(message.body, "{}");
    }

    #[test]
    fn what_is_nested_as_deeply_as_may_be_is_read_again_and_what_is_deeper_becomes_text() {
        let nested = |levels| {
            (0..levels).fold(Value::Void, |value, level| match level % 2 {
                0 => Value::List(vec![value]),
                _ => Value::Table([("t".to_owned(), value)].into()),
            })
        };
        let mut message = Message::default();
        message.properties.headers.insert("deep".to_owned(), nested(DEPTH_MAX));
        assert!(message.is_shallow() && !message.clone().make_expressible());
        let json = serde_json::to_string(&message.properties).unwrap();
        assert_eq!(serde_json::from_str::<Properties>(&json).unwrap(), message.properties);
        message.properties.headers.insert("deep".to_owned(), nested(DEPTH_MAX + 1));
        assert!(!message.is_shallow());
        assert!(message.make_expressible() && message.is_shallow());
        let json = serde_json::to_string(&message.properties).unwrap();
        assert!(json.contains("list"), "the innermost one is there as text: {json}");
    }

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
