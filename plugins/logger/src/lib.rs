//! The default plugin: writes one notification per event to the host's log.
//!
//! The text comes from a template (<https://docs.rs/minijinja/latest/minijinja/syntax/>), or is
//! the event as one line of JSON. The template sees `type`, `id`, `source`, `subject`, `time`,
//! `data` (the JSON data), `extensions` and `attempt`.

use std::collections::BTreeMap;

use minijinja::Environment;
use notify_plugin::{Delivery, Event, Failure, Handled, Info, Plugin, done, info, misconfigured};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// `OrderCreated 4711: product iPhone 15, user_id user123`
const DEFAULT_TEMPLATE: &str = "\
{{ type }}{% if subject %} {{ subject }}{% endif %}\
{% if data is mapping %}\
{% for key, value in data|items if value != type and value != subject %}\
{{ ': ' if loop.first else ', ' }}{{ key }} {{ value }}\
{% endfor %}\
{% else %}: {{ data }}{% endif %}";

const CONFIG_SCHEMA: &str = r#"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": false,
    "properties": {
        "format": {
            "enum": ["text", "json"],
            "default": "text",
            "description": "text: what the template makes of the event; json: the event as one line of JSON"
        },
        "template": { "type": "string", "description": "a minijinja template, for the format text" }
    }
}"#;

/// The operator's settings.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    format: Format,
    template: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Text,
    Json,
}

/// An event as the template sees it, and as the line of JSON that the format `json` writes.
#[derive(Serialize)]
struct View<'a, Data> {
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

struct Logger;

impl Plugin for Logger {
    fn describe() -> Info {
        Info::new("logger", env!("CARGO_PKG_VERSION"), "Writes one notification per event to the host's log")
            .annotation("license", env!("CARGO_PKG_LICENSE"))
            .config_schema(CONFIG_SCHEMA)
    }

    fn handle(event: Event, delivery: Delivery) -> Handled {
        let settings: Settings = notify_plugin::config()?;
        let line = match settings.format {
            Format::Text => text(&event, &delivery, settings.template.as_deref().unwrap_or(DEFAULT_TEMPLATE))?,
            Format::Json => json(&event, &delivery)?,
        };
        info!("{line}");
        done()
    }
}

notify_plugin::export!(Logger);

fn text(event: &Event, delivery: &Delivery, template: &str) -> Result<String, Failure> {
    // Deeper or larger in number than can be taken apart: it is shown as it came.
    let data = serde_json::from_str::<serde_json::Value>(&event.data)
        .unwrap_or_else(|_| serde_json::Value::String(event.data.clone()));
    Environment::new()
        .render_str(template, minijinja::value::Serde(view(event, delivery, data)))
        .map_err(|error| misconfigured(format!("[config] template: {error}")))
}

fn json(event: &Event, delivery: &Delivery) -> Result<String, Failure> {
    let data: &RawValue = event_data(event)?;
    serde_json::to_string(&view(event, delivery, data)).map_err(|error| misconfigured(error.to_string()))
}

fn event_data(event: &Event) -> Result<&RawValue, Failure> {
    serde_json::from_str(&event.data).map_err(|error| notify_plugin::reject("bad-data", error.to_string()))
}

fn view<'a, Data>(event: &'a Event, delivery: &Delivery, data: Data) -> View<'a, Data> {
    View {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data: &str, template: &str, expected: &str) {
        let event = Event {
            id: "1".to_owned(),
            source: "shop".to_owned(),
            event_type: "OrderCreated".to_owned(),
            subject: Some("4711".to_owned()),
            time: None,
            data: data.to_owned(),
            extensions: Vec::new(),
        };
        let delivery = Delivery {
            attempt: 1,
            max_attempts: 8,
            budget: 1000,
            idempotency_key: String::new(),
            transport: Vec::new(),
        };
        assert_eq!(text(&event, &delivery, template).ok().as_deref(), Some(expected));
    }

    #[test]
    fn the_default_text_names_what_is_in_the_data() {
        let data = r#"{"event":"OrderCreated","order_id":"4711","user_id":"user123","product":"iPhone 15"}"#;
        check(data, DEFAULT_TEMPLATE, "OrderCreated 4711: product iPhone 15, user_id user123");
        check("{}", DEFAULT_TEMPLATE, "OrderCreated 4711");
        check("[1]", DEFAULT_TEMPLATE, "OrderCreated 4711: [1]");
    }

    #[test]
    fn data_that_cannot_be_taken_apart_is_shown_as_it_came() {
        check("1e999", "{{ data }}", "1e999");
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        check(&deep, "{{ data }}", &deep);
    }

    #[test]
    fn the_tutorials_example_writes_the_tutorials_lines() {
        let example = include_str!("../examples/tutorial.toml");
        let template = example.split("'''").nth(1).map(|text| text.trim_start_matches('\n')).unwrap_or_default();
        check(
            r#"{"event":"OrderCreated","order_id":"4711","user_id":"user123","product":"iPhone 15"}"#,
            template,
            "[Notification Service] Получено событие: OrderCreated\n\
             Заказ #4711 от пользователя user123\n\
             Товар: iPhone 15\n\
             Отправляем email-уведомление...",
        );
    }
}
