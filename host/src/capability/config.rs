//! The operator's settings, as the plugin sees them.

use crate::plugin::Guest;
use crate::plugin::contract::config::Host;

impl Host for Guest {
    async fn get_json(&mut self) -> String {
        self.calls.count("config.get-json");
        // A map of JSON values always serialises.
        serde_json::to_string(&*self.call.settings).unwrap_or_else(|_| "{}".to_owned())
    }

    async fn get(&mut self, key: String) -> Option<String> {
        self.calls.count("config.get");
        Some(match self.call.settings.get(&key)? {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }
}
