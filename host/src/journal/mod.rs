//! The journal is what happened to recent events: received, matched or filtered and by which rule, each
//! attempt with its outcome, and where the event went.
//!
//! It answers questions and decides nothing. Delivery hands it records and never waits for it: what comes
//! faster than the disk takes it is counted and left out. The last moments before a crash may be missing.

mod chunk;
mod desk;
mod form;
mod record;
mod store;
mod timeline;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use crate::journal::record::{
    Attempted, Line, Next, Received, Record, Recorded, Routed, Rule, SpillReason, Then, What,
};
pub(crate) use crate::journal::store::{Reader, StoreError};
pub(crate) use crate::journal::timeline::{Standing, Timeline};
pub(crate) use crate::journal::writer::Journal;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// What is older is forgotten.
    pub(crate) age_max: Duration,
    /// Of the file; the oldest is forgotten first.
    pub(crate) bytes_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { age_max: Duration::from_hours(7 * 24), bytes_max: 1 << 30 }
    }
}

/// Where it lies, in what belongs to one plugin folder.
pub(crate) fn file(folder_state: &Path) -> PathBuf {
    folder_state.join("journal.db")
}
