//! The content of a notification about one event, independent of any service's format.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::fit::{Escape, Room, Unit, as_it_is, escaped, fit};

/// Maximum number of details.
const FIELDS_MAX: usize = 20;
const LABEL_CHARS_MAX: usize = 60;
const VALUE_CHARS_MAX: usize = 500;
/// Maximum characters of the title. All services allow more, or have a limit of their own.
const TITLE_CHARS_MAX: usize = 200;

/// Importance of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Severity {
    Info,
    Success,
    Warning,
    Error,
}

impl Severity {
    pub(crate) const ALL: [Self; 4] = [Self::Info, Self::Success, Self::Warning, Self::Error];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    pub(crate) fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == text.trim())
    }

    /// Returns the colour as red, green and blue.
    pub(crate) fn color(self) -> u32 {
        match self {
            Self::Info => 0x003b_82f6,
            Self::Success => 0x0022_c55e,
            Self::Warning => 0x00f5_9e0b,
            Self::Error => 0x00ef_4444,
        }
    }
}

/// The text below the title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// Literal text.
    Plain(String),
    /// Text in the service's own markup. Event data in it is escaped.
    Markup(String),
}

/// A detail, like `Price`, `1999.90 EUR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) label: String,
    pub(crate) value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) title: String,
    pub(crate) text: Text,
    pub(crate) fields: Vec<Field>,
    pub(crate) severity: Severity,
    /// An http or https URL.
    pub(crate) link: Option<String>,
}

impl Message {
    /// Makes a title of one line that is never empty, because services refuse an empty one.
    pub(crate) fn title_of(text: &str, event_type: &str) -> String {
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let title = [line(text), line(event_type)].into_iter().find(|title| !title.is_empty());
        fit(&title.unwrap_or_else(|| "Event".to_owned()), TITLE_CHARS_MAX, Unit::Utf16, as_it_is)
    }

    /// Returns text and details as lines, for services without structured messages.
    pub(crate) fn plain(&self) -> String {
        self.lines(as_it_is)
    }

    /// Does the same for services that require a text, with the title as a substitute. `escape` only applies to a
    /// message in markup, where everything except the text itself must be escaped.
    pub(crate) fn any_text(&self, escape: Escape) -> String {
        let escape = match self.text {
            Text::Plain(_) => as_it_is,
            Text::Markup(_) => escape,
        };
        let lines = self.lines(escape);
        if lines.is_empty() { escaped(&self.title, escape) } else { lines }
    }

    fn lines(&self, escape: Escape) -> String {
        let mut lines = Vec::new();
        match &self.text {
            Text::Plain(text) | Text::Markup(text) if text.trim().is_empty() => {}
            Text::Plain(text) | Text::Markup(text) => lines.push(text.trim_end().to_owned()),
        }
        lines.extend(self.fields.iter().map(|field| format!("{}: {}", field.label, escaped(&field.value, escape))));
        lines.join("\n")
    }

    /// Returns the body that `form` makes of this message, or of as much of it as fits.
    pub(crate) fn within(&self, bytes_max: usize, form: impl Fn(&Self) -> Vec<u8>) -> Vec<u8> {
        let body = form(self);
        if body.len() <= bytes_max {
            return body;
        }
        let mut room = bytes_max;
        loop {
            let body = form(&self.cut(room));
            if body.len() <= bytes_max || room == 0 {
                return body;
            }
            room = room * 2 / 3;
        }
    }

    /// Cuts text and details to this many bytes. Markup that was cut becomes plain text.
    fn cut(&self, bytes: usize) -> Self {
        let mut room = Room::new(bytes, Unit::Bytes, as_it_is);
        let text = match &self.text {
            Text::Markup(text) if room.takes(text) => Text::Markup(text.clone()),
            Text::Plain(text) | Text::Markup(text) => Text::Plain(room.take(text, bytes)),
        };
        let cut =
            |field: &Field| Field { label: room.take(&field.label, bytes), value: room.take(&field.value, bytes) };
        let fields = self.fields.iter().map(cut).filter(|field| !field.label.is_empty() && !field.value.is_empty());
        Self { text, fields: fields.collect(), ..self.clone() }
    }
}

/// The data's members in the publisher's order, with values as they were written: `1999.90` stays `1999.90`.
pub(crate) struct Members(pub(crate) Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Returns the details of an event: all of its data, or only the named members.
pub(crate) fn fields(data: &str, event_type: &str, named: Option<&[String]>) -> Vec<Field> {
    let Ok(Members(members)) = serde_json::from_str(data) else { return Vec::new() };
    let value_of = |name: &str| members.iter().find(|(key, _)| key == name).and_then(|(_, value)| shown(value));
    let currency = value_of("currency");
    let field = |(key, value): &(String, Box<RawValue>)| {
        let mut value = shown(value)?;
        if key == "price"
            && let Some(currency) = &currency
        {
            value = format!("{value} {currency}");
        }
        let is_news = value != event_type && !(key == "currency" && value_of("price").is_some());
        (named.is_some() || is_news).then(|| Field { label: label(key), value })
    };
    match named {
        Some(wanted) => wanted
            .iter()
            .filter_map(|name| members.iter().find(|(key, _)| key == name).and_then(field))
            .take(FIELDS_MAX)
            .collect(),
        None => members.iter().filter_map(field).take(FIELDS_MAX).collect(),
    }
}

/// Returns the text of a value, or `None` for null and empty values.
fn shown(value: &RawValue) -> Option<String> {
    let text = match value.get() {
        "null" => return None,
        text if text.starts_with('"') => serde_json::from_str(text).unwrap_or_else(|_| text.to_owned()),
        text => text.to_owned(),
    };
    let text = fit(text.trim(), VALUE_CHARS_MAX, Unit::Utf16, as_it_is);
    (!text.is_empty()).then_some(text)
}

/// Turns a key into a label for people. Only letters, digits, spaces and `-` remain, so a label has no special
/// meaning to any service.
fn label(key: &str) -> String {
    let known = match key {
        "order_id" => "Order",
        "user_id" => "Customer",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    let spaced: String = key.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { ' ' }).collect();
    let words = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut characters = words.chars();
    let first = characters.next().map(|first| first.to_uppercase().collect::<String>());
    let label = first.map_or_else(|| "Value".to_owned(), |first| first + characters.as_str());
    fit(&label, LABEL_CHARS_MAX, Unit::Utf16, as_it_is)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Generates arbitrary messages that contain markup and mentions of all services.
    pub(crate) fn any_message() -> impl Strategy<Value = Message> {
        let nasty = prop_oneof![
            Just("@everyone <!channel> <@U1> @channel <http://evil.example|click> [a](http://evil.example)".to_owned()),
            Just("</b><script>&amp;".to_owned()),
            Just("*bold* _it_ ~no~ `code` > quote\n# head\n- item".to_owned()),
            Just("&<>\"\\🛒é".repeat(20_000)),
            Just("\u{0}\u{1f}".repeat(20_000)),
            "(?s).{0,200}",
        ];
        let field = ("[a-z<@]{1,80}", nasty.clone())
            .prop_map(|(key, value)| Field {
                label: label(&key),
                value: fit(value.trim(), VALUE_CHARS_MAX, Unit::Utf16, as_it_is),
            })
            .prop_filter("a field says something", |field| !field.value.is_empty());
        let fields = proptest::collection::vec(field, 0..=FIELDS_MAX);
        let severity = proptest::sample::select(&Severity::ALL[..]);
        let link = proptest::option::of(Just("https://shop.example/orders/4711?a=%22b&c".to_owned()));
        (nasty.clone(), nasty, fields, severity, link).prop_map(|(title, text, fields, severity, link)| Message {
            title: Message::title_of(&title, "OrderCreated"),
            text: Text::Plain(text),
            fields,
            severity,
            link,
        })
    }

    pub(crate) fn message() -> Message {
        let field = |label: &str, value: &str| Field { label: label.to_owned(), value: value.to_owned() };
        Message {
            title: "🛒 New order: iPhone 15".to_owned(),
            text: Text::Plain("a <b> & *c*".to_owned()),
            fields: vec![field("Order", "4711"), field("Price", "1999.90 EUR")],
            severity: Severity::Info,
            link: Some("https://shop.example/orders/4711".to_owned()),
        }
    }

    fn check(data: &str, named: Option<&[&str]>, expected: &str) {
        let named: Option<Vec<_>> = named.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let fields = fields(data, "OrderCreated", named.as_deref());
        let lines: Vec<_> = fields.iter().map(|field| format!("{}: {}", field.label, field.value)).collect();
        assert_eq!(lines.join("; "), expected, "{data}");
    }

    #[test]
    fn the_details_are_the_data_in_the_publishers_order_and_digits() {
        let data = r#"{"event":"OrderCreated","order_id":"4711","user_id":null,"product":"iPhone 15","price":1999.90,
            "currency":"EUR","tracking_number":"JD01","items":[1, 2],"a\"<b>":" x ","empty":""}"#;
        check(
            data,
            None,
            "Order: 4711; Product: iPhone 15; Price: 1999.90 EUR; Tracking number: JD01; Items: [1, 2]; A b: x",
        );
        check(data, Some(&["price", "order_id", "gone"]), "Price: 1999.90 EUR; Order: 4711");
        check(data, Some(&[]), "");
        check("[1]", None, "");
        check("1e999", None, "");
        check(r#"{"<@&>":1}"#, None, "Value: 1");
    }

    #[test]
    fn a_title_is_one_line_and_never_empty() {
        assert_eq!(Message::title_of(" New\norder ", "OrderCreated"), "New order");
        assert_eq!(Message::title_of(" \n", "OrderCreated"), "OrderCreated");
        assert_eq!(Message::title_of("", ""), "Event");
        assert_eq!(Message::title_of(&"x".repeat(300), "").chars().count(), TITLE_CHARS_MAX);
    }

    #[test]
    fn markup_that_must_be_cut_becomes_plain() {
        let mut long = message();
        long.text = Text::Markup("<b>x</b>".repeat(1000));
        let body = long.within(500, |message| {
            assert!(message.text == long.text || matches!(message.text, Text::Plain(_)));
            message.plain().into_bytes()
        });
        assert!(body.len() <= 500);
    }
}
