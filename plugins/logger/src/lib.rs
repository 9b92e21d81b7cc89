//! The default plugin: writes one notification per event to the host's log.
//!
//! The text comes from a template (<https://docs.rs/minijinja/latest/minijinja/syntax/>), or is
//! the event as one line of JSON. The template sees `type`, `id`, `source`, `subject`, `time`,
//! `data` (the JSON data), `extensions` and `attempt`.

mod brief;

use notify_plugin::template::{Templates, View};
use notify_plugin::{Delivery, Event, Failure, Handled, Info, Plugin, done, info, misconfigured};
use serde::Deserialize;

/// Produces e.g. `OrderCreated 4711: product iPhone 15, user_id user123`.
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

struct Logger;

impl Plugin for Logger {
    fn describe() -> Info {
        Info::new("logger", env!("CARGO_PKG_VERSION"), "Writes one notification per event to the host's log")
            .annotation("license", env!("CARGO_PKG_LICENSE"))
            // The event is done only once its line is written.
            .annotation("log", "required")
            .config_schema(CONFIG_SCHEMA)
    }

    fn handle(event: Event, delivery: Delivery) -> Handled {
        let settings: Settings = notify_plugin::config()?;
        let line = match settings.format {
            Format::Text => match settings.template {
                Some(template) => text(&event, &delivery, &template)?,
                None => default_text(&event, &delivery)?,
            },
            Format::Json => json(&event, &delivery)?,
        };
        info!("{line}");
        done()
    }
}

notify_plugin::export!(Logger);

fn default_text(event: &Event, delivery: &Delivery) -> Result<String, Failure> {
    brief::text(event).map_or_else(|| text(event, delivery, DEFAULT_TEMPLATE), Ok)
}

fn text(event: &Event, delivery: &Delivery, template: &str) -> Result<String, Failure> {
    Templates::new(event, delivery).render("template", template)
}

fn json(event: &Event, delivery: &Delivery) -> Result<String, Failure> {
    serde_json::to_string(&View::new(event, delivery, event.raw_data()?))
        .map_err(|error| misconfigured(error.to_string()))
}

#[cfg(test)]
mod tests {
    use notify_plugin::testing;

    use super::*;

    fn check(data: &str, template: &str, expected: &str) {
        let event = testing::event("OrderCreated", data);
        assert_eq!(text(&event, &testing::delivery(), template).ok().as_deref(), Some(expected));
    }

    #[test]
    fn the_default_text_names_what_is_in_the_data() {
        let data = r#"{"event":"OrderCreated","order_id":"4711","user_id":"user123","product":"iPhone 15"}"#;
        check(data, DEFAULT_TEMPLATE, "OrderCreated 4711: product iPhone 15, user_id user123");
        check("{}", DEFAULT_TEMPLATE, "OrderCreated 4711");
        check("[1]", DEFAULT_TEMPLATE, "OrderCreated 4711: [1]");
    }

    #[test]
    fn the_default_text_is_what_the_default_template_makes() {
        for (data, is_brief) in [
            (r#"{"event":"OrderCreated","order_id":"4711","user_id":"user123","product":"iPhone 15"}"#, true),
            (r#"{"b":"\u00e9\n\"x\"","a":-1,"c":18446744073709551615,"d":true,"e":"","OrderCreated":"4711 "}"#, true),
            (r#"{"a":1,"a":"last","\u0062":"b"}"#, true),
            (r#"{"subject":"4711","type":"OrderCreated"}"#, true),
            ("{}", true),
            (r#"{"a":1.50,"b":999.00,"c":1e300,"d":-0.0,"e":-1.25e-7,"f":5e-324,"g":0.1}"#, true),
            (r#"{"a":null,"b":123456789012345678901234567890}"#, true),
            (r#"{"a":["b",{"c":1}]}"#, false),
            (r#"{"a":1e999}"#, false),
            ("[1]", false),
            ("null", false),
        ] {
            let mut event = testing::event("OrderCreated", data);
            for subject in [None, Some(""), Some("4711")] {
                event.subject = subject.map(str::to_owned);
                let by_template = text(&event, &testing::delivery(), DEFAULT_TEMPLATE).ok();
                assert_eq!(default_text(&event, &testing::delivery()).ok(), by_template, "{data}");
                assert_eq!(brief::text(&event).is_some(), is_brief, "{data}");
            }
        }
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
