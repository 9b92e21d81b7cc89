//! The default text for simple order data, built without compiling a template or a tree of values. These two are most
//! of an event's cost otherwise.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use notify_plugin::Event;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// Returns the default template's text, if the data is an object of strings, numbers, booleans and nulls.
pub(crate) fn text(event: &Event) -> Option<String> {
    // Sorted, and the last duplicate wins, as in the template.
    let data: BTreeMap<Text<'_>, Plain<'_>> = serde_json::from_str(&event.data).ok()?;
    let mut text = String::with_capacity(event.data.len() + event.event_type.len());
    text.push_str(&event.event_type);
    let subject = event.subject.as_deref();
    if let Some(subject) = subject.filter(|subject| !subject.is_empty()) {
        text.push(' ');
        text.push_str(subject);
    }
    let is_said = |value: &Plain<'_>| match value {
        Plain::Text(value) => **value == event.event_type || Some(&**value) == subject,
        _ => false,
    };
    let mut before = ": ";
    for (Text(key), value) in data.iter().filter(|(_, value)| !is_said(value)) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{before}{key} {value}");
        before = ", ";
    }
    Some(text)
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Text<'a>(Cow<'a, str>);

/// A value that contains no other values.
enum Plain<'a> {
    Text(Cow<'a, str>),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Truth(bool),
    Null,
}

/// Formats as templates do.
impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Signed(number) => number.fmt(f),
            Self::Unsigned(number) => number.fmt(f),
            Self::Float(number) => {
                let text = number.to_string();
                f.write_str(&text)?;
                if text.contains('.') { Ok(()) } else { f.write_str(".0") }
            }
            Self::Truth(truth) => f.write_str(if *truth { "True" } else { "False" }),
            Self::Null => f.write_str("None"),
        }
    }
}

impl<'de> Deserialize<'de> for Plain<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor)
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Plain::deserialize(deserializer)? {
            Plain::Text(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("no text")),
        }
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Plain<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a truth or null")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Plain::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Plain::Text(text.to_owned().into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Plain::Signed(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Plain::Unsigned(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Plain::Float(number))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Plain::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Plain::Truth(truth))
    }
}
