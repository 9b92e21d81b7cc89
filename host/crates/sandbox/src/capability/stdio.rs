//! The console is a guest's standard output and error. It leads into the plugin's log, line by
//! line, within the quota of the log.

use std::pin::Pin;

use bytes::Bytes;
use outbound::redact::{Redaction, Redactor};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::capability::log::PluginLog;
use crate::capability::secret_store::SecretStore;

/// Bytes that a guest may write at once; it writes more in several calls.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// A longer line becomes several: a guest need not write any line feed.
const LINE_BYTES_MAX: usize = 4 << 10;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdioStream {
    Output,
    Error,
}

/// One of the two, of one call.
#[derive(Clone, Debug)]
pub struct GuestStdio {
    log: PluginLog,
    stream: StdioStream,
}

impl GuestStdio {
    pub fn new(log: PluginLog, stream: StdioStream) -> Self {
        Self { log, stream }
    }
}

impl IsTerminal for GuestStdio {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStdio {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for it, which is not offered.
        Box::new(tokio::io::sink())
    }
}

impl OutputStream for GuestStdio {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.print(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl Pollable for GuestStdio {
    // The trait's own form of an async function that is ready at once.
    fn ready<'life, 'made>(&'life mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'made>>
    where
        'life: 'made,
        Self: 'made,
    {
        Box::pin(std::future::ready(()))
    }
}

/// Cuts what is written into lines, without the values of secrets in them.
#[derive(Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end is not there yet, as it may be shown.
    begun: Vec<u8>,
    /// Remembers which part of that line may belong to a secret's value.
    redaction: Redaction,
}

impl Lines {
    /// Takes more bytes, and hands each line that they end to `line`.
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

    /// Hands over what has no end.
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

    /// Hands over what is too long for one line.
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

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("begun", &self.begun.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found, secret_store) = (Lines::default(), Vec::new(), SecretStore::default());
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
