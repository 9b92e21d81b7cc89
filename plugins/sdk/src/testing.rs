//! Samples for a plugin's own unit tests, which run without a host.

use crate::{Delivery, Event};

/// Returns an event of this type with this data, with the subject `4711` and the source `shop`.
///
/// ```
/// let event = notify_plugin::testing::event("OrderCreated", r#"{"product": "iPhone 15"}"#);
/// assert_eq!(event.subject.as_deref(), Some("4711"));
/// ```
pub fn event(event_type: &str, data: &str) -> Event {
    Event {
        id: "1".to_owned(),
        source: "shop".to_owned(),
        event_type: event_type.to_owned(),
        subject: Some("4711".to_owned()),
        time: None,
        data: data.to_owned(),
        extensions: Vec::new(),
    }
}

/// Returns the first of eight attempts, with a budget of one second.
pub fn delivery() -> Delivery {
    Delivery { attempt: 1, max_attempts: 8, budget: 1000, idempotency_key: "key".to_owned(), transport: Vec::new() }
}
