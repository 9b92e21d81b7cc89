//! Dead letters: browse, replay, edit and purge deliveries that were given up.
//!
//! All operations work on the dead-letter queue itself while hosts run. A letter is removed only after its copy
//! has arrived, so a crash may duplicate a letter but never loses one.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

pub mod browse;
pub mod edited_event;
pub mod json;
pub mod letter;
pub mod replay;
mod select;
mod service;
pub mod session;

use crate::browse::Letter;
pub use crate::select::Selection;
pub use crate::service::{Changed, DeadLetterError, DeadLetterService};

/// Returns the single letter among those found by `id`. The error says that there are several.
pub fn the_one(mut letters: Vec<Letter>, id: &str) -> Result<Option<Letter>, String> {
    // Copies of one letter share its id and everything else.
    letters.sort_by(|one, other| one.summary.id.cmp(&other.summary.id));
    letters.dedup_by(|next, letter| next.summary.id == letter.summary.id);
    if letters.len() < 2 {
        return Ok(letters.pop());
    }
    let name = |letter: &Letter| {
        format!("{} of {}", letter.summary.id, letter.summary.plugin.as_deref().unwrap_or("no plugin"))
    };
    let some: Vec<_> = letters.iter().rev().take(5).map(name).collect();
    Err(format!("event {id:?} has {} dead letters: say which, by its id ({}, …)", letters.len(), some.join(", ")))
}
