//! {{name}}: a plugin for notify-host. `handle` is where your work goes.
//!
//! `cargo doc --open` shows what there is to call.

use notify_plugin::{Delivery, Event, Handled, Info, Plugin, done, info, retry, skipped};
use serde::Deserialize;

/// What an operator may set under [config]: JSON Schema. The host fills in its defaults.
const CONFIG_SCHEMA: &str = r#"{
    "type": "object",
    "additionalProperties": false,
    "properties": {
        "greeting": {
            "type": "string", "minLength": 1, "default": "Thank you", "description": "how the message begins"
        },
        "ignore-user": { "type": "string", "description": "whose orders are none of our business" }
    }
}"#;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    greeting: String,
    ignore_user: Option<String>,
}

#[derive(Deserialize)]
struct Order {
    order_id: String,
    #[serde(default = "stranger")]
    user_id: String,
    product: Option<String>,
}

fn stranger() -> String {
    "stranger".to_owned()
}

struct Thanks;

impl Plugin for Thanks {
    /// What the plugin is, and what it would like. Called once, when it is loaded.
    fn describe() -> Info {
        Info::new("{{name}}", env!("CARGO_PKG_VERSION"), "Thanks for every order")
            .config_schema(CONFIG_SCHEMA)
            // `*` is one word of a type, `#` any number of them. Without a subscription: every event.
            .subscribe("OrderCreated")
    }

    /// One attempt at one event, in a fresh instance. After a panic it is tried again later.
    fn handle(event: Event, delivery: Delivery) -> Handled {
        let settings: Settings = notify_plugin::config()?;
        // What has another shape is rejected. By hand: `Err(notify_plugin::reject("code", "reason"))`.
        let order: Order = event.data()?;
        if settings.ignore_user.as_ref() == Some(&order.user_id) {
            return skipped(format!("the orders of {} are ignored", order.user_id));
        }
        let Some(product) = &order.product else {
            // What may be better later. `retry_after` says when.
            return Err(retry(format!("order {} has no product yet", order.order_id)));
        };
        let message = message(&settings.greeting, &order.user_id, product);
        info!(order_id = order.order_id, attempt = delivery.attempt, "{message}");
        done()
    }
}

notify_plugin::export!(Thanks);

fn message(greeting: &str, user: &str, product: &str) -> String {
    format!("{greeting}, {user}: {product} is ordered")
}

/// Plain Rust: `cargo test`.
#[cfg(test)]
mod tests {
    #[test]
    fn an_order_is_thanked_for() {
        assert_eq!(super::message("Hello", "ada", "Lovelace"), "Hello, ada: Lovelace is ordered");
    }
}
