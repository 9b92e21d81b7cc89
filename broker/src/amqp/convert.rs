//! Converts messages to AMQP's types, and back from the guard's output. Anything that RabbitMQ can
//! carry passes through unchanged.

use std::fmt::Display;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldTable, ShortString};

use crate::{Headers, Properties, Value};

/// Maximum bytes of an AMQP short string; names, keys and most properties are short strings.
const SHORT_STRING_BYTES_MAX: usize = 255;
const PERSISTENT: u8 = 2;

/// Converts text to an AMQP short string, or returns a sentence that says why it cannot. `what` is
/// the role of the text.
pub(super) fn short_string(what: &str, text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text)
        .map_err(|_| format!("its {what} has {} bytes, and may have {SHORT_STRING_BYTES_MAX}", text.len()))
}

/// Converts properties for publishing, or returns a sentence that says why AMQP cannot express them.
pub(super) fn to_amqp(properties: &Properties) -> Result<BasicProperties, String> {
    type Set = fn(BasicProperties, ShortString) -> BasicProperties;
    let texts: [(&str, &Option<String>, Set); 10] = [
        ("content type", &properties.content_type, BasicProperties::with_content_type),
        ("content encoding", &properties.content_encoding, BasicProperties::with_content_encoding),
        ("correlation id", &properties.correlation_id, BasicProperties::with_correlation_id),
        ("reply-to", &properties.reply_to, BasicProperties::with_reply_to),
        ("expiration", &properties.expiration, BasicProperties::with_expiration),
        ("message id", &properties.message_id, BasicProperties::with_message_id),
        ("type", &properties.message_type, BasicProperties::with_type),
        ("user id", &properties.user_id, BasicProperties::with_user_id),
        ("app id", &properties.app_id, BasicProperties::with_app_id),
        ("cluster id", &properties.cluster_id, BasicProperties::with_cluster_id),
    ];
    let mut amqp = BasicProperties::default().with_delivery_mode(PERSISTENT);
    for (what, text, set) in texts {
        if let Some(text) = text {
            amqp = set(amqp, short_string(what, text)?);
        }
    }
    if !properties.headers.is_empty() {
        amqp = amqp.with_headers(to_table(&properties.headers)?);
    }
    if let Some(priority) = properties.priority {
        amqp = amqp.with_priority(priority);
    }
    if let Some(timestamp) = properties.timestamp {
        amqp = amqp.with_timestamp(timestamp);
    }
    Ok(amqp)
}

fn to_table(headers: &Headers) -> Result<FieldTable, String> {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(short_string("header name", name)?, to_value(value)?);
    }
    Ok(table)
}

fn to_value(value: &Value) -> Result<AMQPValue, String> {
    Ok(match value {
        Value::Void => AMQPValue::Void,
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::I8(value) => AMQPValue::ShortShortInt(*value),
        Value::U8(value) => AMQPValue::ShortShortUInt(*value),
        Value::I16(value) => AMQPValue::ShortInt(*value),
        Value::U16(value) => AMQPValue::ShortUInt(*value),
        Value::I32(value) => AMQPValue::LongInt(*value),
        Value::U32(value) => AMQPValue::LongUInt(*value),
        Value::I64(value) => AMQPValue::LongLongInt(*value),
        Value::F32(bits) => AMQPValue::Float(finite(f32::from_bits(*bits), f32::is_finite)?),
        Value::F64(bits) => AMQPValue::Double(finite(f64::from_bits(*bits), f64::is_finite)?),
        Value::Decimal(scale, value) => AMQPValue::DecimalValue(DecimalValue { scale: *scale, value: *value }),
        Value::Text(text) => AMQPValue::LongString(text.as_str().into()),
        Value::LongString(bytes) => AMQPValue::LongString(bytes.as_slice().into()),
        Value::Bytes(bytes) => AMQPValue::ByteArray(bytes.as_slice().into()),
        Value::Timestamp(seconds) => AMQPValue::Timestamp(*seconds),
        Value::List(values) => {
            AMQPValue::FieldArray(values.iter().map(to_value).collect::<Result<Vec<_>, _>>()?.into())
        }
        Value::Table(headers) => AMQPValue::FieldTable(to_table(headers)?),
    })
}

/// Rejects a number that is not finite. RabbitMQ cannot read it, and closes the whole connection over it.
fn finite<T: Copy + Display>(number: T, is_finite: fn(T) -> bool) -> Result<T, String> {
    if is_finite(number) {
        Ok(number)
    } else {
        Err(format!("a header has the value {number}, which RabbitMQ cannot carry"))
    }
}

/// Returns the bytes that the headers take on the wire. All properties must fit into one frame,
/// because RabbitMQ closes the whole connection over a larger one.
pub(super) fn headers_bytes(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| 1 + name.len() + value_bytes(value)).sum::<usize>() + 4
}

/// Returns the bytes of a content header frame without the headers: the frame's own 8, class,
/// weight, body size and flags, and the other properties (AMQP 0-9-1, sections 4.2.3 and 4.2.6).
pub(super) fn frame_bytes_without_headers(properties: &Properties) -> usize {
    const FIXED: usize = 8 + 2 + 2 + 8 + 2;
    const DELIVERY_MODE_AND_PRIORITY: usize = 2;
    const TIMESTAMP: usize = 8;
    let texts = [
        &properties.content_type,
        &properties.content_encoding,
        &properties.correlation_id,
        &properties.reply_to,
        &properties.expiration,
        &properties.message_id,
        &properties.message_type,
        &properties.user_id,
        &properties.app_id,
        &properties.cluster_id,
    ];
    let texts: usize = texts.into_iter().flatten().map(|text| 1 + text.len()).sum();
    FIXED + DELIVERY_MODE_AND_PRIORITY + TIMESTAMP + texts
}

fn value_bytes(value: &Value) -> usize {
    1 + match value {
        Value::Void => 0,
        Value::Bool(_) | Value::I8(_) | Value::U8(_) => 1,
        Value::I16(_) | Value::U16(_) => 2,
        Value::I32(_) | Value::U32(_) | Value::F32(_) => 4,
        Value::Decimal(..) => 5,
        Value::I64(_) | Value::F64(_) | Value::Timestamp(_) => 8,
        Value::Text(text) => 4 + text.len(),
        Value::LongString(bytes) | Value::Bytes(bytes) => 4 + bytes.len(),
        Value::List(values) => 4 + values.iter().map(value_bytes).sum::<usize>(),
        Value::Table(headers) => headers_bytes(headers),
    }
}

#[cfg(test)]
mod tests {
    use amq_protocol::protocol::basic::gen_properties;

    use super::*;
    use crate::amqp::guard::properties::{self, Reading};

    #[test]
    fn every_property_and_every_type_of_header_comes_back_as_it_went() {
        let headers: Headers = [
            ("void", Value::Void),
            ("numbers", Value::List(vec![Value::I8(-1), Value::U8(255), Value::I16(-2), Value::U16(65535)])),
            ("double", Value::F64((-0.0_f64).to_bits())),
            ("float", Value::F32(1.5_f32.to_bits())),
            ("decimal", Value::Decimal(2, 314)),
            ("bytes", Value::Bytes(vec![0, 255])),
            ("not utf-8", Value::LongString(vec![0xff, 0])),
            ("table", Value::Table([("at".to_owned(), Value::Timestamp(u64::MAX))].into())),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let properties = Properties {
            content_type: Some("a".to_owned()),
            content_encoding: Some("b".to_owned()),
            headers,
            priority: Some(3),
            correlation_id: Some("c".to_owned()),
            reply_to: Some("d".to_owned()),
            expiration: Some("1000".to_owned()),
            message_id: Some("e".to_owned()),
            timestamp: Some(1_700_000_000),
            message_type: Some("f".to_owned()),
            user_id: Some("g".to_owned()),
            app_id: Some("h".to_owned()),
            cluster_id: Some("i".to_owned()),
        };
        let amqp = to_amqp(&properties).unwrap();
        assert_eq!(*amqp.delivery_mode(), Some(PERSISTENT));
        let raw = gen_properties(&amqp)(Vec::new().into()).unwrap().write;
        assert_eq!(properties::read(&raw), Reading { properties, problem: None });
    }

    #[test]
    fn what_amqp_cannot_express_is_told_by_its_role() {
        let long = "x".repeat(256);
        let with_header =
            |name: &str, value| Properties { headers: [(name.to_owned(), value)].into(), ..Properties::default() };
        let nested = Value::List(vec![Value::Table([(long.clone(), Value::Void)].into())]);
        for (properties, what) in [
            (Properties { message_id: Some(long.clone()), ..Properties::default() }, "message id"),
            (with_header(&long, Value::Void), "header name"),
            (with_header("a", nested), "header name"),
        ] {
            let error = to_amqp(&properties).unwrap_err();
            assert_eq!(error, format!("its {what} has 256 bytes, and may have 255"));
        }
        to_amqp(&with_header("a", Value::Text(long))).unwrap();
        for (value, shown) in [
            (Value::F64(f64::NAN.to_bits()), "NaN"),
            (Value::List(vec![Value::F32(f32::NEG_INFINITY.to_bits())]), "-inf"),
        ] {
            let error = to_amqp(&with_header("a", value)).unwrap_err();
            assert_eq!(error, format!("a header has the value {shown}, which RabbitMQ cannot carry"));
        }
    }
}
