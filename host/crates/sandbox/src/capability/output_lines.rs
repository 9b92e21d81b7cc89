//! Splits the output of a guest into lines.

use outbound::redact::{Redaction, Redactor};

use crate::capability::secret_store::SecretStore;

/// Maximum bytes of a line. A longer line is split, because a guest need not write any line feed.
const LINE_BYTES_MAX: usize = 4 << 10;

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdioStream {
    Output,
    Error,
}

/// Splits written bytes into lines, without the values of secrets.
#[derive(Default)]
pub(super) struct LineSplitter {
    /// The beginning of an unfinished line, already redacted.
    begun: Vec<u8>,
    /// Tracks which part of the line may belong to a secret's value.
    redaction: Redaction,
}

impl LineSplitter {
    /// Takes more bytes, and passes each completed line to `line`.
    pub(super) fn push(&mut self, bytes: &[u8], secret_store: &SecretStore, mut line: impl FnMut(&str)) {
        let redactor = secret_store.has_secrets().then(|| secret_store.redactor());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            match &redactor {
                Some(redactor) => self.redaction.push(redactor, text, &mut self.begun),
                None => self.begun.extend_from_slice(text),
            }
            self.cut(&mut line);
            if text.len() < piece.len() {
                self.end(redactor.as_deref(), &mut line);
            }
        }
    }

    /// Passes on the unfinished line.
    pub(super) fn finish(&mut self, secret_store: &SecretStore, mut line: impl FnMut(&str)) {
        if secret_store.has_secrets() {
            self.redaction.finish(&secret_store.redactor(), &mut self.begun);
            self.cut(&mut line);
        }
        if !self.begun.is_empty() {
            self.hand_over(self.begun.len(), &mut line);
        }
    }

    fn end(&mut self, redactor: Option<&Redactor>, line: &mut impl FnMut(&str)) {
        if let Some(redactor) = redactor {
            self.redaction.finish(redactor, &mut self.begun);
        }
        self.cut(line);
        self.hand_over(self.begun.len(), line);
    }

    /// Passes on the part that is too long for one line.
    fn cut(&mut self, line: &mut impl FnMut(&str)) {
        while self.begun.len() >= LINE_BYTES_MAX {
            self.hand_over(LINE_BYTES_MAX, line);
        }
    }

    fn hand_over(&mut self, bytes: usize, line: &mut impl FnMut(&str)) {
        line(String::from_utf8_lossy(&self.begun[..bytes]).trim_end_matches('\r'));
        self.begun.drain(..bytes);
    }
}

impl std::fmt::Debug for LineSplitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LineSplitter").field("begun", &self.begun.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found, secret_store) = (LineSplitter::default(), Vec::new(), SecretStore::default());
        for piece in pieces {
            lines.push(piece, &secret_store, |line| found.push(line.to_owned()));
        }
        lines.finish(&secret_store, |line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn what_is_written_is_cut_into_lines() {
        assert_eq!(lines(&[b"one\ntw", b"o\r\n", b"\nthree"]), ["one", "two", "", "three"]);
        assert_eq!(lines(&[b"\xff\xfe\n"]), ["\u{fffd}\u{fffd}"]);
        assert!(lines(&[b""]).is_empty());
    }

    #[test]
    fn what_has_no_line_feed_is_cut_all_the_same() {
        let long = vec![b'x'; 3 * LINE_BYTES_MAX + 1];
        let lengths: Vec<_> = lines(&[&long]).iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_BYTES_MAX, LINE_BYTES_MAX, LINE_BYTES_MAX, 1]);
    }
}
