//! How much the journal keeps.

use std::time::Duration;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalBounds {
    /// What is older is forgotten.
    pub age_max: Duration,
    /// Of the file; the oldest is forgotten first.
    pub bytes_max: u64,
}

impl Default for JournalBounds {
    fn default() -> Self {
        Self { age_max: Duration::from_hours(7 * 24), bytes_max: 1 << 30 }
    }
}
