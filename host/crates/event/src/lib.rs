//! An event: CloudEvents context attributes and JSON data.
//!
//! It is decoded into the contract's own type, so that any number of plugins get it without a copy. The data stays the
//! JSON text that the publisher wrote; nothing here re-serialises it.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

mod arrived;
pub mod clock;
mod cloudevents;
pub mod decode;
mod filter;
mod plain;
pub mod pretty_json;
pub mod suggest;
pub mod text;
pub mod trace_context;

use std::ops::Deref;
use std::sync::Arc;

use contract::types;
use uuid::Uuid;

pub use crate::arrived::{Arrived, DecodeError};
pub use crate::decode::decode;
pub use crate::filter::{Answer, Filter, Look, Matter};
pub use crate::plain::{Finder, Property, Rules};
#[cfg(test)]
use crate::trace_context::PARENT;

/// One event, with the attributes and data that every plugin gets. Clones share their content.
#[derive(Clone, Debug)]
pub struct Event {
    attributes: Arc<types::Event>,
    /// Whether the publisher set the id. Otherwise it is a hash of the body.
    pub has_own_id: bool,
}

impl Deref for Event {
    type Target = types::Event;

    fn deref(&self) -> &Self::Target {
        &self.attributes
    }
}

/// Namespace of our name-based ids: a random UUID that must never change, because idempotency keys must survive
/// upgrades.
const NAMESPACE: Uuid = Uuid::from_u128(0x3f1c_86f6_5a2b_4b1e_9d43_0a6e_7c51_d2b8);

#[cfg(test)]
impl Event {
    /// Returns an order event, for tests.
    pub fn sample(data: &str) -> Self {
        let attributes = types::Event {
            id: "1".to_owned(),
            source: "shop".to_owned(),
            event_type: "order.created".to_owned(),
            subject: None,
            time: Some("2026-11-24T10:00:00Z".to_owned()),
            data: data.to_owned(),
            extensions: vec![(PARENT.to_owned(), "00-ab".to_owned())],
        };
        Self::new(attributes, true)
    }
}

impl Event {
    pub fn new(attributes: types::Event, has_own_id: bool) -> Self {
        Self { attributes: Arc::new(attributes), has_own_id }
    }

    /// Returns the attributes for editing. Other clones do not see the change.
    pub fn attributes_mut(&mut self) -> &mut types::Event {
        Arc::make_mut(&mut self.attributes)
    }

    /// Returns the idempotency key: the same for all attempts of this event at this plugin, on every host.
    pub fn idempotency_key(&self, plugin: &str) -> String {
        self.key_at(plugin).to_string()
    }

    /// Returns a key that is the same for events with the same id and source.
    pub fn key(&self) -> Uuid {
        self.key_at("")
    }

    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn key_at(&self, plugin: &str) -> Uuid {
        // Lengths keep ("a", "bc") from looking like ("ab", "c").
        let name = format!("{}:{}{}:{}{plugin}", self.source.len(), self.source, self.id.len(), self.id);
        Uuid::new_v5(&NAMESPACE, name.as_bytes())
    }
}

/// Derives an id for a message that has none. It is the same each time the message is delivered.
pub fn id_of_body(body: &[u8]) -> String {
    Uuid::new_v5(&NAMESPACE, body).to_string()
}
