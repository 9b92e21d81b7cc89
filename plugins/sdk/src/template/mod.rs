//! Renders texts from an event by the operator's templates, in the syntax of
//! [minijinja](https://docs.rs/minijinja/latest/minijinja/syntax/).
//!
//! A template sees `type`, `id`, `source`, `subject`, `time`, `data` (the JSON data), `extensions` and `attempt`. Its
//! values are escaped for the target format ([`Escape`]), unless the template says `|safe`.

mod json;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, escape_formatter};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::{Delivery, Event, Failure, misconfigured, reject};

/// Characters to escape in a URL: all but the "unreserved" ones of RFC 3986.
const ESCAPED_IN_URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An event as a template sees it. `Data` is the type of its parsed data.
#[derive(Clone, Debug, Serialize)]
pub struct View<'a, Data> {
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: BTreeMap<&'a str, &'a str>,
    attempt: u32,
    data: Data,
}

impl<'a, Data> View<'a, Data> {
    /// Creates a view of this event with its parsed data.
    pub fn new(event: &'a Event, delivery: &Delivery, data: Data) -> Self {
        Self {
            id: &event.id,
            source: &event.source,
            event_type: &event.event_type,
            subject: event.subject.as_deref(),
            time: event.time.as_deref(),
            extensions: event.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            attempt: delivery.attempt,
            data,
        }
    }
}

/// The format of a rendered text, which determines how values are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Escape {
    /// Plain text without escaping.
    Nothing,
    /// HTML or XML.
    Html,
    /// JSON, inside and outside quotes: `{"text": "order {{ subject }}", "data": {{ data }}}`. The result must be
    /// valid JSON, or the event is rejected.
    Json,
    /// A URL or a form.
    Url,
}

impl Escape {
    const ALL: [Self; 4] = [Self::Nothing, Self::Html, Self::Json, Self::Url];

    /// Returns the escaping for a body of this content type.
    pub fn for_content_type(content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let subtype = essence.split_once('/').map_or("", |(_, subtype)| subtype);
        match subtype.rsplit('+').next() {
            Some("json") => Self::Json,
            Some("html" | "xml") => Self::Html,
            Some("x-www-form-urlencoded") => Self::Url,
            _ => Self::Nothing,
        }
    }

    fn of_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Nothing)
    }

    fn name(self) -> AutoEscape {
        match self {
            Self::Nothing => AutoEscape::None,
            Self::Html => AutoEscape::Html,
            Self::Json => AutoEscape::Json,
            Self::Url => AutoEscape::Custom("url".into()),
        }
    }
}

/// Renders the templates for one event.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    view: Value,
    /// Current escaping, which the environment's callback reads.
    escape: Arc<AtomicU8>,
}

impl Templates {
    /// Creates the renderer for this event.
    pub fn new(event: &Event, delivery: &Delivery) -> Self {
        // Data that is nested too deeply or has too large numbers cannot be parsed, so show it as text.
        let data = serde_json::from_str::<serde_json::Value>(&event.data)
            .unwrap_or_else(|_| serde_json::Value::String(event.data.clone()));
        let escape = Arc::new(AtomicU8::new(Escape::Nothing as u8));
        let mut environment = Environment::new();
        let current = Arc::clone(&escape);
        environment.set_auto_escape_callback(move |_| Escape::of_number(current.load(Ordering::Relaxed)).name());
        environment.set_formatter(write);
        Self { environment, view: Value::from(Serde(View::new(event, delivery, data))), escape }
    }

    /// Returns the environment, e.g. to add filters.
    pub fn environment(&mut self) -> &mut Environment<'static> {
        &mut self.environment
    }

    /// Makes undefined values an error from now on, instead of rendering as nothing.
    pub fn fail_on_undefined(&mut self) {
        self.environment.set_undefined_behavior(UndefinedBehavior::Strict);
    }

    /// Renders plain text. Failures name the setting of the template, `key`, as `[config] KEY`.
    ///
    /// # Errors
    ///
    /// Returns [`Failure::Misconfigured`] if the template itself is wrong, and [`Failure::Reject`] with the code
    /// `template` if it fails for this event.
    pub fn render(&self, key: &str, template: &str) -> Result<String, Failure> {
        self.render_for(Escape::Nothing, key, template)
    }

    /// Renders a text in the given format.
    ///
    /// # Errors
    ///
    /// See [`Self::render`].
    pub fn render_for(&self, escape: Escape, key: &str, template: &str) -> Result<String, Failure> {
        self.escape.store(escape as u8, Ordering::Relaxed);
        let text = self.environment.render_str(template, self.view.clone()).map_err(|error| failure(key, &error))?;
        match escape {
            Escape::Json => json::finish(&text)
                .map_err(|error| reject("template", format!("[config] {key}: what comes of it is not JSON: {error}"))),
            Escape::Nothing | Escape::Html | Escape::Url => Ok(text),
        }
    }
}

/// Writes one value into the text.
fn write(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.is_safe() {
        return escape_formatter(out, state, value);
    }
    match state.auto_escape() {
        AutoEscape::Json => {
            out.write_char(json::BEGIN)?;
            escape_formatter(out, state, value)?;
            Ok(out.write_char(json::END)?)
        }
        AutoEscape::Custom(_) => {
            let text = value.to_string();
            Ok(utf8_percent_encode(&text, ESCAPED_IN_URL).try_for_each(|piece| out.write_str(piece))?)
        }
        _ => escape_formatter(out, state, value),
    }
}

/// Classifies an error: the template is wrong for every event, or only fails for this one.
fn failure(key: &str, error: &Error) -> Failure {
    let place = error.line().map_or_else(String::new, |line| format!(", line {line}"));
    let detail = error.detail().map_or_else(String::new, |detail| format!(": {detail}"));
    let sentence = format!("[config] {key}{place}: {}{detail}", error.kind());
    match error.kind() {
        ErrorKind::SyntaxError
        | ErrorKind::InvalidDelimiter
        | ErrorKind::TemplateNotFound
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownFunction => misconfigured(sentence),
        _ => reject("template", sentence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn templates(data: &str) -> Templates {
        let traceparent = ("traceparent".to_owned(), "00-a-b-01".to_owned());
        let event = Event { extensions: vec![traceparent], ..testing::event("OrderCreated", data) };
        let delivery = Delivery { attempt: 2, ..testing::delivery() };
        Templates::new(&event, &delivery)
    }

    fn check(escape: Escape, template: &str, expected: &str) {
        let data = r#"{"product": "a \"b\" <c>\n&d=ä/..", "price": 12.50, "tags": ["x"], "none": null}"#;
        assert_eq!(templates(data).render_for(escape, "text", template).ok().as_deref(), Some(expected), "{template}");
    }

    #[test]
    fn a_template_sees_the_event() {
        check(
            Escape::Nothing,
            "{{ id }} {{ source }} {{ type }} {{ subject }} {{ attempt }} {{ extensions.traceparent }}",
            "1 shop OrderCreated 4711 2 00-a-b-01",
        );
        check(Escape::Nothing, "{{ data.product }}", "a \"b\" <c>\n&d=ä/..");
        check(Escape::Nothing, "[{{ data.missing }}{{ time }}]", "[]");
    }

    #[test]
    fn what_is_filled_in_is_escaped_for_where_it_goes() {
        check(Escape::Html, "<p>{{ data.product }}</p>", "<p>a &quot;b&quot; &lt;c&gt;\n&amp;d=ä&#x2f;..</p>");
        check(Escape::Html, "{{ '<b>'|safe }}", "<b>");
        check(
            Escape::Url,
            "https://a.example/{{ data.product }}?n={{ data.price }}",
            "https://a.example/a%20%22b%22%20%3Cc%3E%0A%26d%3D%C3%A4%2F..?n=12.5",
        );
        check(Escape::Url, "{{ 'a/b'|safe }}", "a/b");
    }

    #[test]
    fn json_holds_values_and_texts_of_values() {
        check(Escape::Json, r#"{"a": {{ data.product }}}"#, r#"{"a": "a \"b\" <c>\n&d=ä/.."}"#);
        check(Escape::Json, r#"{"a": "it is {{ data.product }}!"}"#, r#"{"a": "it is a \"b\" <c>\n&d=ä/..!"}"#);
        check(Escape::Json, r#"["{{ data.tags }}", {{ data.tags }}]"#, r#"["[\"x\"]", ["x"]]"#);
        check(Escape::Json, r#"["{{ data.price }}", {{ data.price }}, {{ data.none }}]"#, r#"["12.5", 12.5, null]"#);
        check(Escape::Json, r#"["{{ data.missing }}", {{ data.missing }}, "{{ data.none }}"]"#, r#"["", null, ""]"#);
        check(
            Escape::Json,
            r#"{"\\{{ id }}\"": [{{ data | tojson }}]}"#.replace("data", "data.tags").as_str(),
            r#"{"\\1\"": [["x"]]}"#,
        );
    }

    #[test]
    fn what_comes_of_a_json_template_is_json() {
        for template in [r#"{"a": {{ "}, evil"|safe }}}"#, r#"{"a": "#, "", "{{ id }} {{ id }}", "\"\u{1}1\u{2}\u{1}\""]
        {
            let Err(Failure::Reject(rejection)) = templates("{}").render_for(Escape::Json, "body", template) else {
                panic!("{template}")
            };
            assert_eq!(rejection.code, "template");
            assert!(
                rejection.reason.starts_with("[config] body: what comes of it is not JSON"),
                "{}",
                rejection.reason
            );
        }
    }

    #[test]
    fn a_wrong_template_is_told_from_an_event_that_does_not_suit_it() {
        let templates = templates("{}");
        for template in ["{{ id", "{{ id|no_such_filter }}", "{% if %}", "{{ no_such_function() }}"] {
            let Err(Failure::Misconfigured(reason)) = templates.render("text", template) else { panic!("{template}") };
            assert!(reason.starts_with("[config] text, line 1: "), "{reason}");
        }
        for template in ["{{ data.customer.name }}", "{{ id + 1 }}"] {
            let Err(Failure::Reject(rejection)) = templates.render("text", template) else { panic!("{template}") };
            assert_eq!(rejection.code, "template");
        }
    }

    #[test]
    fn what_is_undefined_may_be_a_fault() {
        let mut templates = templates("{}");
        templates.fail_on_undefined();
        assert!(matches!(templates.render("to", "{{ data.email }}"), Err(Failure::Reject(_))));
    }

    #[test]
    fn data_that_cannot_be_taken_apart_is_shown_as_it_came() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        for data in ["1e999", &deep] {
            assert_eq!(templates(data).render("text", "{{ data }}").ok().as_deref(), Some(data));
        }
    }

    #[test]
    fn a_content_type_says_how_to_escape() {
        for (content_type, escape) in [
            ("application/json", Escape::Json),
            ("application/cloudevents+json; charset=utf-8", Escape::Json),
            ("Text/HTML", Escape::Html),
            ("application/soap+xml", Escape::Html),
            ("application/x-www-form-urlencoded", Escape::Url),
            ("text/plain", Escape::Nothing),
            ("json", Escape::Nothing),
        ] {
            assert_eq!(Escape::for_content_type(content_type), escape, "{content_type}");
        }
    }
}
