//! A plugin's description of itself.

use crate::bindings::exports::notify::plugin::metadata::{PluginInfo, Request, Subscription};

/// Name, version, subscriptions and capability requests of a plugin.
#[derive(Debug)]
pub struct Info(PluginInfo);

impl Info {
    /// Creates a description. `name` consists of `[a-z0-9-]`; `version` is usually `env!("CARGO_PKG_VERSION")`.
    pub fn new(name: impl Into<String>, version: impl Into<String>, description: impl Into<String>) -> Self {
        Self(PluginInfo {
            name: name.into(),
            version: version.into(),
            description: description.into(),
            annotations: Vec::new(),
            config_schema: None,
            subscriptions: Vec::new(),
            requests: Vec::new(),
        })
    }

    /// Subscribes to events of a matching type: `OrderCreated`, `order.*`, `order.#`.
    ///
    /// Without a subscription a plugin gets every event. The operator's file overrides all subscriptions.
    #[must_use]
    pub fn subscribe(self, event_type: impl Into<String>) -> Self {
        self.subscribe_to(event_type, None, None)
    }

    /// Subscribes with additional patterns for the event's source and subject.
    #[must_use]
    pub fn subscribe_to(
        mut self,
        event_type: impl Into<String>,
        source: Option<String>,
        subject: Option<String>,
    ) -> Self {
        self.0.subscriptions.push(Subscription { event_type: event_type.into(), source, subject });
        self
    }

    /// Sets the JSON Schema (2020-12) of the configuration object.
    #[must_use]
    pub fn config_schema(mut self, schema: impl Into<String>) -> Self {
        self.0.config_schema = Some(schema.into());
        self
    }

    /// Requests a capability, e.g. `("http", "https://hooks.example.com", "posts the message")`.
    #[must_use]
    pub fn request(mut self, capability: impl Into<String>, scope: impl Into<String>, why: impl Into<String>) -> Self {
        self.0.requests.push(Request { capability: capability.into(), scope: scope.into(), why: why.into() });
        self
    }

    /// Adds an annotation: `license`, `homepage`, `authors`, …
    #[must_use]
    pub fn annotation(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.annotations.push((name.into(), value.into()));
        self
    }
}

impl From<Info> for PluginInfo {
    fn from(info: Info) -> Self {
        info.0
    }
}
