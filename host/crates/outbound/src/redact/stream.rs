//! Redaction of a text that comes in pieces.

use crate::redact::Redactor;

/// Beside what a value may reach, so much is collected before it is searched; in tests little, so that there are many pieces.
const PIECE_BYTES: usize = if cfg!(test) { 64 } else { 16 << 10 };

/// Takes a text in pieces, and gives it out as [`Redactor::redact`] would of the whole, however it was cut.
///
/// It holds back as much as the longest value may reach, always, whatever is in it.
#[derive(Default)]
pub struct Redaction {
    /// What has not been given out.
    held: Vec<u8>,
    /// At the beginning of that, bytes of a value whose name has been given out.
    covered: usize,
}

impl Redaction {
    /// Takes a piece; adds to `out` what is certain.
    pub fn push(&mut self, redactor: &Redactor, piece: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(piece);
        if self.held.len() >= 2 * redactor.reach + PIECE_BYTES {
            self.give(redactor, self.held.len() - redactor.reach, out);
        }
    }

    /// Adds the rest: there are no more pieces.
    pub fn finish(&mut self, redactor: &Redactor, out: &mut Vec<u8>) {
        self.give(redactor, self.held.len(), out);
    }

    /// Gives out what begins before `end`.
    fn give(&mut self, redactor: &Redactor, end: usize, out: &mut Vec<u8>) {
        let mut at = self.covered;
        for (range, instead) in redactor.find(&self.held).into_iter().take_while(|(range, _)| range.start < end) {
            // What overlaps with a value whose name has been given out belongs to it.
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
