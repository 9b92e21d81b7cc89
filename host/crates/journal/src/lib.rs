//! The journal is what happened to recent events: received, matched or filtered and by which rule, each
//! attempt with its outcome, and where the event went.
//!
//! It answers questions and decides nothing. Delivery hands it records and never waits for it: what comes
//! faster than the disk takes it is counted and left out. The last moments before a crash may be missing.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

mod chunk;
mod desk;
mod form;
pub mod json;
mod query;
pub mod record;
mod recorder;
mod store;
pub mod timeline;
mod writer;

use std::path::{Path, PathBuf};

pub use delivery::{Next, Recorded, Rule};

pub use crate::query::{EVENTS_MAX, Filter, OutcomeFilter, Subjects, find, nothing_known};
pub use crate::record::{Attempted, Line, Received, Record, Routed, SpillReason, Then, What};
pub use crate::store::{Reader, StoreError};
pub use crate::timeline::{Standing, Timeline};
pub use crate::writer::Journal;

/// Where it lies, in what belongs to one plugin folder.
pub fn file(folder_state: &Path) -> PathBuf {
    folder_state.join("journal.db")
}
