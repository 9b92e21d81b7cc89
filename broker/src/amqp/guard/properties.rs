//! Reads the properties of a message from the bytes of its content header, whatever they are.
//!
//! Depth is bounded and lengths are checked. Nothing is refused as a whole: readable properties are read, and the first
//! unreadable part is named. The value types are RabbitMQ's (<https://www.rabbitmq.com/amqp-0-9-1-errata#section_3>).

use std::fmt::{self, Display};

use crate::amqp::guard::text::mend;
use crate::{Headers, Properties, Value};

/// Maximum levels of lists and tables inside a header. People use two or three; RabbitMQ itself
/// writes two (`x-death`).
const DEPTH_MAX: usize = 32;

/// The readable properties, and a note on the unreadable part.
#[derive(Debug, PartialEq)]
pub(in crate::amqp) struct Reading {
    pub(in crate::amqp) properties: Properties,
    /// The first part that could not be read, as a sentence that begins with "its".
    pub(in crate::amqp) problem: Option<String>,
}

/// Reads the property flags and the properties after them.
pub(in crate::amqp) fn read(bytes: &[u8]) -> Reading {
    let mut reading = Reading { properties: Properties::default(), problem: None };
    if let Err(fault) = read_into(&mut reading, &mut Reader(bytes)) {
        reading.problem.get_or_insert_with(|| format!("its properties cannot be read: {fault}"));
    }
    reading
}

/// Returns why a table at the start of these bytes cannot be read; `None` if it can.
pub(super) fn problem_of_table(bytes: &[u8]) -> Option<String> {
    let table = Reader(bytes).long_bytes().and_then(|table| Reader(table).table(1));
    table.err().map(|fault| fault.to_string())
}

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
/// Undefined flags. The lowest announces another flags word, which class `basic` never needs.
const UNDEFINED: u16 = 0b11;

/// Reads the properties in the order of their flags, as the protocol demands.
fn read_into(reading: &mut Reading, reader: &mut Reader<'_>) -> Result<(), PropertyFault> {
    let flags = u16::from_be_bytes(reader.array()?);
    if flags & UNDEFINED != 0 {
        return Err(PropertyFault::Flags(flags));
    }
    let has = |flag: u16| flags & flag != 0;
    let text = |reader: &mut Reader<'_>, flag: u16| has(flag).then(|| reader.short_text()).transpose();
    let properties = &mut reading.properties;
    properties.content_type = text(reader, CONTENT_TYPE)?;
    properties.content_encoding = text(reader, CONTENT_ENCODING)?;
    if has(HEADERS) {
        let mut table = Reader(reader.long_bytes()?);
        // The length of the table is known, so the properties behind it can be read even if the table cannot.
        if let Err(problem) = read_headers(&mut properties.headers, &mut table) {
            reading.problem = Some(problem);
        }
    }
    if has(DELIVERY_MODE) {
        reader.byte()?;
    }
    properties.priority = has(PRIORITY).then(|| reader.byte()).transpose()?;
    properties.correlation_id = text(reader, CORRELATION_ID)?;
    properties.reply_to = text(reader, REPLY_TO)?;
    properties.expiration = text(reader, EXPIRATION)?;
    properties.message_id = text(reader, MESSAGE_ID)?;
    properties.timestamp = has(TIMESTAMP).then(|| reader.array().map(u64::from_be_bytes)).transpose()?;
    properties.message_type = text(reader, TYPE)?;
    properties.user_id = text(reader, USER_ID)?;
    properties.app_id = text(reader, APP_ID)?;
    properties.cluster_id = text(reader, CLUSTER_ID)?;
    if reader.0.is_empty() { Ok(()) } else { Err(PropertyFault::Surplus(reader.0.len())) }
}

/// Reads the headers, and returns the problem with the first unreadable one. A fault inside a list
/// or table of known length does not affect the other headers.
fn read_headers(headers: &mut Headers, table: &mut Reader<'_>) -> Result<(), String> {
    let mut problem = None;
    while !table.0.is_empty() {
        let entry = table.short_text().map_err(|fault| (fault, None));
        let entry = entry.and_then(|name| match table.value(1) {
            Ok(value) => Ok((name, value)),
            Err(fault) => Err((fault, Some(name))),
        });
        let (fault, name) = match entry {
            Ok((name, value)) => {
                headers.insert(name, value);
                continue;
            }
            Err(failed) => failed,
        };
        let is_last = !matches!(fault, PropertyFault::Within(_));
        problem.get_or_insert_with(|| match name {
            Some(name) => format!("its header {name:?} cannot be read: {fault}"),
            None => format!("its headers cannot be read: {fault}"),
        });
        if is_last {
            break;
        }
    }
    problem.map_or(Ok(()), Err)
}

/// Why bytes are not valid properties.
#[derive(Debug, PartialEq, Eq)]
enum PropertyFault {
    Cut,
    Surplus(usize),
    Flags(u16),
    Type(u8),
    Depth,
    /// Inside a list or table whose end is known nevertheless.
    Within(Box<PropertyFault>),
}

impl Display for PropertyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => write!(f, "they end in the middle of a value"),
            Self::Surplus(count) => write!(f, "{count} bytes follow the last one"),
            Self::Flags(flags) => write!(f, "AMQP does not define the property flags {flags:#06x}"),
            Self::Type(byte) => write!(f, "AMQP does not define the type {byte:#04x}"),
            Self::Depth => write!(f, "it is nested deeper than {DEPTH_MAX} levels"),
            Self::Within(fault) => fault.fmt(f),
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], PropertyFault> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(PropertyFault::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PropertyFault> {
        self.array().map(u8::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PropertyFault> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(PropertyFault::Cut)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn short_text(&mut self) -> Result<String, PropertyFault> {
        let length = self.byte()?;
        self.take(length.into()).map(mend)
    }

    fn long_bytes(&mut self) -> Result<&'a [u8], PropertyFault> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(usize::try_from(length).map_err(|_| PropertyFault::Cut)?)
    }

    fn value(&mut self, depth: usize) -> Result<Value, PropertyFault> {
        Ok(match self.byte()? {
            b'V' => Value::Void,
            b't' => Value::Bool(self.byte()? != 0),
            b'b' => Value::I8(i8::from_be_bytes(self.array()?)),
            b'B' => Value::U8(self.byte()?),
            b's' | b'U' => Value::I16(i16::from_be_bytes(self.array()?)),
            b'u' => Value::U16(u16::from_be_bytes(self.array()?)),
            b'I' => Value::I32(i32::from_be_bytes(self.array()?)),
            b'i' => Value::U32(u32::from_be_bytes(self.array()?)),
            b'l' | b'L' => Value::I64(i64::from_be_bytes(self.array()?)),
            b'f' => {
                let number = f32::from_be_bytes(self.array()?);
                if number.is_finite() { Value::F32(number.to_bits()) } else { not_a_number(number) }
            }
            b'd' => {
                let number = f64::from_be_bytes(self.array()?);
                if number.is_finite() { Value::F64(number.to_bits()) } else { not_a_number(number) }
            }
            b'D' => Value::Decimal(self.byte()?, u32::from_be_bytes(self.array()?)),
            b'S' => {
                let bytes = self.long_bytes()?;
                match str::from_utf8(bytes) {
                    Ok(text) => Value::Text(text.to_owned()),
                    Err(_) => Value::LongString(bytes.to_vec()),
                }
            }
            b'x' => Value::Bytes(self.long_bytes()?.to_vec()),
            b'T' => Value::Timestamp(u64::from_be_bytes(self.array()?)),
            b'A' => {
                let mut list = Reader(self.long_bytes()?);
                within(list.list(depth))?
            }
            b'F' => {
                let mut table = Reader(self.long_bytes()?);
                within(table.table(depth))?
            }
            other => return Err(PropertyFault::Type(other)),
        })
    }

    fn list(&mut self, depth: usize) -> Result<Value, PropertyFault> {
        if depth > DEPTH_MAX {
            return Err(PropertyFault::Depth);
        }
        let mut values = Vec::new();
        while !self.0.is_empty() {
            values.push(self.value(depth + 1)?);
        }
        Ok(Value::List(values))
    }

    fn table(&mut self, depth: usize) -> Result<Value, PropertyFault> {
        if depth > DEPTH_MAX {
            return Err(PropertyFault::Depth);
        }
        let mut headers = Headers::new();
        while !self.0.is_empty() {
            headers.insert(self.short_text()?, self.value(depth + 1)?);
        }
        Ok(Value::Table(headers))
    }
}

fn within(value: Result<Value, PropertyFault>) -> Result<Value, PropertyFault> {
    value.map_err(|fault| {
        if matches!(fault, PropertyFault::Within(_)) { fault } else { PropertyFault::Within(Box::new(fault)) }
    })
}

/// Converts a number that is not finite to text. RabbitMQ closes a connection over one, so it could
/// not be passed on.
fn not_a_number(number: impl Display) -> Value {
    Value::Text(number.to_string())
}
