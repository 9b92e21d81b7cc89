//! The operator's settings, and the message that they make of an event.

use std::fmt::Write as _;

use notify_plugin::{Failure, misconfigured};
use serde::Deserialize;

use crate::fit::{Escape, as_it_is};
use crate::message::{Message, Severity, Text, fields};
use crate::template::Renderer;

/// Produces e.g. `🛒 New order: iPhone 15`.
const DEFAULT_TITLE: &str = r#"
{%- set names = {
    "OrderCreated": "🛒 New order", "OrderPaid": "💶 Order paid", "OrderShipped": "🚚 Order shipped",
    "OrderDelivered": "📦 Order delivered", "OrderCanceled": "❌ Order canceled", "OrderRefunded": "↩️ Order refunded",
    "notify.plugin.failing": "⚠️ A plugin is failing", "notify.plugin.paused": "⚠️ A plugin is paused",
    "notify.plugin.recovered": "✅ A plugin works again"
} -%}
{{ names[type] | default(type) }}
{%- if data is mapping and data.product %}: {{ data.product }}
{%- elif type is startingwith("notify.plugin.") and subject %}: {{ subject }}
{%- elif type not in names and subject %} {{ subject }}
{%- endif %}"#;

const DEFAULT_SEVERITY: &str = r#"
{%- set known = {
    "OrderPaid": "success", "OrderDelivered": "success", "OrderCanceled": "warning", "OrderRefunded": "warning",
    "notify.plugin.failing": "error", "notify.plugin.paused": "error", "notify.plugin.recovered": "success"
} -%}
{{ known[type] | default(data.severity if data is mapping else "") }}"#;

pub(crate) const SCHEMA: &str = r#"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": false,
    "required": ["targets"],
    "properties": {
        "targets": {
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "items": { "type": "string", "pattern": "^[a-z]+://[^ ]+$" },
            "description": "who is told, by URL, such as \"slack://T000/B000/{secret:slack-token}\"; better one, and a toml for each"
        },
        "repeats": {
            "enum": ["refuse", "allow"],
            "default": "refuse",
            "description": "several targets of which more than one cannot recognise a repetition: refuse them, or allow that some are told again when another fails"
        },
        "title": { "type": "string", "description": "a minijinja template, of one line" },
        "text": { "type": "string", "description": "a minijinja template; none by default: the details say it" },
        "format": {
            "enum": ["text", "markup"],
            "default": "text",
            "description": "text: the text means nothing but itself; markup: it is in the target's own markup, and values in it are escaped"
        },
        "fields": {
            "type": "array",
            "maxItems": 20,
            "items": { "type": "string" },
            "description": "members of the data that are shown as details; all by default, none where there is a text"
        },
        "severity": {
            "type": "string",
            "description": "a minijinja template that yields info, success, warning or error; it makes colours and priorities"
        },
        "link": { "type": "string", "description": "a minijinja template of the URL that a message leads to; values in it are encoded" }
    }
}"#;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Repeats {
    #[default]
    Refuse,
    Allow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Text,
    Markup,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) targets: Vec<String>,
    pub(crate) repeats: Repeats,
    title: Option<String>,
    text: Option<String>,
    pub(crate) format: Format,
    fields: Option<Vec<String>>,
    severity: Option<String>,
    link: Option<String>,
}

impl Settings {
    /// Builds the message for a service that escapes markup by `escape`.
    pub(crate) fn message(&self, renderer: &Renderer<'_>, format: Format, escape: Escape) -> Result<Message, Failure> {
        let event = renderer.event;
        let title = renderer.render("title", self.title.as_deref().unwrap_or(DEFAULT_TITLE), as_it_is)?;
        let title = Message::title_of(&title, &event.event_type);
        let text = self.text.as_deref().unwrap_or_default();
        let text = match format {
            Format::Text => Text::Plain(renderer.render("text", text, as_it_is)?),
            Format::Markup => Text::Markup(renderer.render("text", text, escape)?),
        };
        let fields = match (&self.fields, &self.text) {
            (None, Some(_)) => Vec::new(),
            (None, None) => {
                let mut fields = fields(&event.data, &event.event_type, None);
                fields.retain(|field| !title.ends_with(&format!(": {}", field.value)));
                fields
            }
            (Some(named), _) => fields(&event.data, &event.event_type, Some(named)),
        };
        let severity = renderer.render("severity", self.severity.as_deref().unwrap_or(DEFAULT_SEVERITY), as_it_is)?;
        let link = match &self.link {
            None => None,
            Some(template) => Some(link(&renderer.render("link", template, in_url)?)?),
        };
        // Event data must not pause the plugin, so an unknown severity counts as info.
        let severity = Severity::of(&severity).unwrap_or(Severity::Info);
        Ok(Message { title, text, fields, severity, link })
    }
}

fn link(link: &str) -> Result<String, Failure> {
    let link = link.trim();
    let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '<' | '>' | '"' | '|' | '\\');
    if (link.starts_with("https://") || link.starts_with("http://")) && link.chars().all(is_plain) {
        return Ok(link.to_owned());
    }
    Err(misconfigured(format!("[config] link: expected a URL that begins with https:// or http://, got {link:?}")))
}

/// Percent-encodes a character for a value in a URL.
pub(crate) fn in_url(_before: Option<char>, character: char, out: &mut String) {
    if character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '~') {
        return as_it_is(None, character, out);
    }
    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
        let _ = write!(out, "%{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::html;
    use notify_plugin::testing::{delivery, event};

    fn message(settings: &str, event_type: &str, data: &str) -> Result<Message, Failure> {
        let settings: Settings = serde_json::from_str(settings).unwrap();
        let (event, delivery) = (event(event_type, data), delivery());
        settings.message(&Renderer { event: &event, delivery: &delivery }, settings.format, html)
    }

    #[test]
    fn every_order_event_has_a_title_details_and_a_severity() {
        let data = r#"{"event":"TYPE","order_id":"4711","user_id":"user123","product":"iPhone 15","price":1999.90,"currency":"EUR"}"#;
        for (event_type, title, severity) in [
            ("OrderCreated", "🛒 New order: iPhone 15", Severity::Info),
            ("OrderPaid", "💶 Order paid: iPhone 15", Severity::Success),
            ("OrderShipped", "🚚 Order shipped: iPhone 15", Severity::Info),
            ("OrderDelivered", "📦 Order delivered: iPhone 15", Severity::Success),
            ("OrderCanceled", "❌ Order canceled: iPhone 15", Severity::Warning),
            ("OrderRefunded", "↩️ Order refunded: iPhone 15", Severity::Warning),
        ] {
            let message = message("{}", event_type, &data.replace("TYPE", event_type)).unwrap();
            assert_eq!((message.title.as_str(), message.severity), (title, severity));
            assert_eq!(message.plain(), "Order: 4711\nCustomer: user123\nPrice: 1999.90 EUR");
        }
    }

    #[test]
    fn any_other_event_is_told_as_well() {
        for (event_type, data, title, plain, severity) in [
            (
                "com.example.backup",
                r#"{"size_bytes":5,"severity":"error"}"#,
                "com.example.backup 4711",
                "Size bytes: 5\nSeverity: error",
                Severity::Error,
            ),
            (
                "com.example.backup",
                r#"{"severity":"loud"}"#,
                "com.example.backup 4711",
                "Severity: loud",
                Severity::Info,
            ),
            ("ping", "[1]", "ping 4711", "", Severity::Info),
            (
                "notify.plugin.failing",
                r#"{"plugin":"email","code":"retry"}"#,
                "⚠️ A plugin is failing: 4711",
                "Plugin: email\nCode: retry",
                Severity::Error,
            ),
        ] {
            let message = message("{}", event_type, data).unwrap();
            assert_eq!((&*message.title, &*message.plain(), message.severity), (title, plain, severity));
        }
    }

    #[test]
    fn the_operators_templates_win() {
        let settings = r#"{"title":"{{ data.a }}","text":"<i>{{ data.a }}</i>","format":"markup","severity":"warning","link":"https://x.example/{{ data.a }}?b={{ data.b }}"}"#;
        let told = message(settings, "t", r#"{"a":"<é/","b":"1&c=2"}"#).unwrap();
        assert_eq!(told.title, "<é/");
        assert_eq!(told.text, Text::Markup("<i>&lt;é/</i>".to_owned()));
        assert_eq!(told.link.as_deref(), Some("https://x.example/%3C%C3%A9%2F?b=1%26c%3D2"));
        assert!(told.fields.is_empty());
        let told = message(r#"{"text":"x","fields":["b"]}"#, "t", r#"{"a":"1","b":"2"}"#).unwrap();
        assert_eq!(told.plain(), "x\nB: 2");
        let error = message(r#"{"link":"javascript:alert(1)"}"#, "t", "{}").unwrap_err();
        assert!(matches!(error, Failure::Misconfigured(_)), "{error:?}");
    }
}
