//! Redaction of a text that arrives in pieces.

use crate::redact::Redactor;

/// Bytes collected before each search, beyond the longest value. Small in tests, so that there are many pieces.
const PIECE_BYTES: usize = if cfg!(test) { 64 } else { 16 << 10 };

/// Redacts a text that arrives in pieces. The output equals [`Redactor::redact`] of the whole text, however it was
/// cut.
///
/// It always holds back as much as the longest value may span, whatever the text contains.
#[derive(Default)]
pub struct Redaction {
    /// Bytes that have not been emitted.
    held: Vec<u8>,
    /// How many of the first held bytes belong to a value whose name has been emitted.
    covered: usize,
}

impl Redaction {
    /// Takes a piece and appends to `out` everything that is certain.
    pub fn push(&mut self, redactor: &Redactor, piece: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(piece);
        if self.held.len() >= 2 * redactor.reach + PIECE_BYTES {
            self.give(redactor, self.held.len() - redactor.reach, out);
        }
    }

    /// Appends the rest after the last piece.
    pub fn finish(&mut self, redactor: &Redactor, out: &mut Vec<u8>) {
        self.give(redactor, self.held.len(), out);
    }

    /// Emits everything that begins before `end`.
    fn give(&mut self, redactor: &Redactor, end: usize, out: &mut Vec<u8>) {
        let mut at = self.covered;
        for (range, instead) in redactor.find(&self.held).into_iter().take_while(|(range, _)| range.start < end) {
            // A match that overlaps with an already emitted value belongs to it.
            if range.start >= at {
                out.extend_from_slice(&self.held[at..range.start]);
                out.extend_from_slice(instead.as_bytes());
            }
            at = at.max(range.end);
        }
        if at < end {
            out.extend_from_slice(&self.held[at..end]);
            at = end;
        }
        self.held.drain(..end);
        self.covered = at - end;
    }
}
