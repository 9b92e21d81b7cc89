//! Formats a dead letter as JSON.

use broker::{Headers, Message, Properties, Value};
use serde_json::json;

/// Prefix of the delivery headers. They are left out here because the summary shows them in words.
const PREFIX: &str = "x-notify-";

/// Returns the headers that are not delivery headers.
pub fn foreign_headers(message: &Message) -> impl Iterator<Item = (&String, &Value)> {
    message.properties.headers.iter().filter(|(name, _)| !name.starts_with(PREFIX))
}

pub fn properties_as_json(message: &Message) -> serde_json::Value {
    json!(Properties { headers: Headers::new(), ..message.properties.clone() })
}

/// Converts a header value to JSON without its exact type, which does not matter to a reader of the letter.
pub fn as_plain_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Void => serde_json::Value::Null,
        Value::Bool(value) => json!(value),
        Value::I8(number) => json!(number),
        Value::U8(number) => json!(number),
        Value::I16(number) => json!(number),
        Value::U16(number) => json!(number),
        Value::I32(number) => json!(number),
        Value::U32(number) => json!(number),
        Value::I64(number) => json!(number),
        Value::Timestamp(seconds) => json!(seconds),
        Value::F32(bits) => json!(f32::from_bits(*bits)),
        Value::F64(bits) => json!(f64::from_bits(*bits)),
        Value::Decimal(scale, number) => json!({ "scale": scale, "number": number }),
        Value::Text(text) => json!(text),
        Value::LongString(bytes) | Value::Bytes(bytes) => json!(bytes),
        Value::List(values) => values.iter().map(as_plain_json).collect(),
        Value::Table(headers) => serde_json::Value::Object(
            headers.iter().map(|(name, value)| (name.clone(), as_plain_json(value))).collect(),
        ),
    }
}
