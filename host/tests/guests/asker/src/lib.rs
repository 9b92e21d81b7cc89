//! A guest that requests every capability and reports its settings.

use notify_plugin::bindings::notify::plugin::config;
use notify_plugin::{Delivery, Event, Handled, Info, Plugin, done_with, info, secrets};

const CONFIG_SCHEMA: &str = r##"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": false,
    "required": ["recipients"],
    "$defs": {
        "relay": {
            "type": "object",
            "additionalProperties": false,
            "properties": { "port": { "type": "integer", "default": 25 } }
        }
    },
    "properties": {
        "recipients": {
            "type": "array",
            "minItems": 1,
            "items": { "type": "string", "pattern": "@" },
            "description": "who gets the mail"
        },
        "subject": { "type": "string", "default": "news" },
        "relay": { "$ref": "#/$defs/relay", "default": {} }
    }
}"##;

struct Asker;

impl Plugin for Asker {
    fn describe() -> Info {
        Info::new("asker", "1.2.0", "Asks for all there is")
            .annotation("homepage", "https://example.com/asker")
            .config_schema(CONFIG_SCHEMA)
            .subscribe("Order*")
            .subscribe("OrderCreated")
            .request("http", "https://hooks.example.com", "to post messages")
            .request("mail", "*@example.com", "to write to \u{1b}[31mpeople")
            .request("secret", "hook-token", "to sign what it posts")
            .request("sms", "+49", "to wake you up")
    }

    fn handle(event: Event, _delivery: Delivery) -> Handled {
        info!(id = event.id, "settings {}", config::get_json());
        match secrets::open("hook-token") {
            Ok(_) => done_with("it has the secret"),
            Err(_) => done_with("the secret is denied"),
        }
    }
}

notify_plugin::export!(Asker);
