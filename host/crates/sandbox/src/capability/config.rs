//! The operator's settings, as the plugin sees them.

use contract::config::Host;
use serde_json::{Map, Value};

use crate::capability::HostState;

/// The settings of one version of a plugin: a JSON object, serialised once for all attempts.
#[derive(Debug)]
pub struct PluginSettings {
    values: Map<String, Value>,
    json: String,
}

impl From<Map<String, Value>> for PluginSettings {
    fn from(values: Map<String, Value>) -> Self {
        // A map of JSON values always serialises.
        let json = serde_json::to_string(&values).unwrap_or_else(|_| "{}".to_owned());
        Self { values, json }
    }
}

impl Default for PluginSettings {
    fn default() -> Self {
        Map::new().into()
    }
}

impl Host for HostState {
    fn get_json(&mut self) -> String {
        self.calls.count("config.get-json");
        self.call.settings.json.clone()
    }

    fn get(&mut self, key: String) -> Option<String> {
        self.calls.count("config.get");
        Some(match self.call.settings.values.get(&key)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }
}
