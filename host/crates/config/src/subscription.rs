//! Which events a plugin gets.

/// Patterns for an event's attributes; all that are given must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub event_type: String,
    pub source: Option<String>,
    pub subject: Option<String>,
}
