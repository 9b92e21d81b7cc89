//! Bounds of the event journal.

use std::time::Duration;

/// How much the journal keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalBounds {
    /// Records older than this are deleted.
    pub age_max: Duration,
    /// Maximum bytes of the file. The oldest records are deleted first.
    pub bytes_max: u64,
}

impl Default for JournalBounds {
    fn default() -> Self {
        Self { age_max: Duration::from_hours(7 * 24), bytes_max: 1 << 30 }
    }
}
