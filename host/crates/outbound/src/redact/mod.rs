//! Redaction replaces the value of a secret by its name in anything that leaves a plugin or comes back to it.
//!
//! A value is found in every [`spelling`] of its characters in URLs, JSON, HTML, mail and UTF-16, in any mixture, and
//! in base64 and hexadecimal, anywhere in a longer text. The output and the time taken depend on a value only where
//! all of it is present. Whoever sees the outcome and chooses the text learns nothing from a part of a value.
//!
//! A form that somebody invents (reversed, encrypted, with letters in between) is not found.

mod matcher;
mod needle;
mod spelling;
mod stream;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use crate::redact::matcher::{Block, LANES, start};
pub use crate::redact::needle::REDACTED_BYTES_MIN;
use crate::redact::needle::{Needle, Needles};
use crate::redact::spelling::SPELLING_BYTES_MAX;
pub use crate::redact::stream::Redaction;
use crate::secret_value::SecretValue;

/// Knows some values, and the text that replaces each.
#[derive(Default)]
pub struct Redactor {
    needles: Vec<Needle>,
    /// One block for each [`LANES`] needles.
    blocks: Vec<Block>,
    /// Upper bound in bytes of any value, however it is spelled.
    reach: usize,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("needles", &self.needles.len()).finish_non_exhaustive()
    }
}

impl Redactor {
    /// Builds a redactor from the names of secrets and each of their current and former values.
    pub fn new<'a>(secrets: impl Iterator<Item = (&'a str, &'a SecretValue)>) -> Self {
        let mut needles = Needles::default();
        for (name, value) in secrets {
            needles.add(value, &instead_of(name));
        }
        let Needles(needles) = needles;
        let longest = needles.iter().map(|needle| needle.form().len()).max().unwrap_or_default();
        let blocks = needles.chunks(LANES).map(Block::new).collect();
        Self { needles, blocks, reach: (longest + 1) * SPELLING_BYTES_MAX }
    }

    /// Returns the bytes with each value replaced.
    pub fn redact<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let found = self.find(bytes);
        if found.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut redacted = Vec::with_capacity(bytes.len());
        let mut end = 0;
        for (range, instead) in found {
            redacted.extend(&bytes[end..range.start]);
            redacted.extend(instead.as_bytes());
            end = range.end;
        }
        redacted.extend(&bytes[end..]);
        Cow::Owned(redacted)
    }

    /// Returns the text with each value replaced.
    pub fn redact_text(&self, text: String) -> String {
        match self.redact(text.as_bytes()) {
            Cow::Borrowed(_) => text,
            // A value that is not text may have split a character.
            Cow::Owned(redacted) => String::from_utf8_lossy(&redacted).into_owned(),
        }
    }

    /// Returns the matches in order, without overlaps: overlapping values are merged.
    fn find(&self, bytes: &[u8]) -> Vec<(Range<usize>, &str)> {
        let mut found: Vec<(Range<usize>, &str)> = Vec::new();
        for (block, needles) in self.blocks.iter().zip(self.needles.chunks(LANES)) {
            let mut covered = [0; LANES];
            block.ends(bytes, |end, lane| {
                let needle = &needles[lane];
                if let Some(start) = start(bytes, end, needle, covered[lane]) {
                    covered[lane] = end;
                    found.push((start..end, needle.instead.as_str()));
                }
            });
        }
        found.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
        let mut apart: Vec<(Range<usize>, &str)> = Vec::with_capacity(found.len());
        for (range, instead) in found {
            match apart.last_mut() {
                Some((last, _)) if range.start < last.end => last.end = last.end.max(range.end),
                _ => apart.push((range, instead)),
            }
        }
        apart
    }
}

/// Returns the text that replaces a secret's value.
pub fn instead_of(name: &str) -> String {
    format!("[secret {name}]")
}
