//! The events that a plugin receives.

/// Patterns for an event's attributes. All patterns that are given must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub event_type: String,
    pub source: Option<String>,
    pub subject: Option<String>,
}
