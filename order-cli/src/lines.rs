//! Reads lines of bytes, one at a time, each of a bounded length.
//!
//! A line that is too long is skipped, so that the following lines can still be read. Waiting for a line can be
//! cancelled and resumed without losing data.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// UTF-8 byte order mark, which some editors write. It belongs to the file, not to the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One line, without its line end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InputLine {
    /// Line number, from 1.
    pub(crate) number: u64,
    /// Content, or `None` if it is too long.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// Reads lines from a reader.
#[derive(Debug)]
pub(crate) struct LineReader<R> {
    reader: R,
    line_bytes_max: usize,
    /// Number of lines returned so far.
    number: u64,
    /// Beginning of the next line.
    line: Vec<u8>,
    /// Whether part of the next line has been read, even if its bytes were dropped.
    started: bool,
    too_long: bool,
}

impl<R: AsyncBufRead + Unpin> LineReader<R> {
    /// Creates a reader. `line_bytes_max` does not include the line end.
    pub(crate) fn new(reader: R, line_bytes_max: usize) -> Self {
        Self { reader, line_bytes_max, number: 0, line: Vec::new(), started: false, too_long: false }
    }

    /// Returns the next line, or `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<InputLine>> {
        loop {
            let read = self.reader.fill_buf().await?;
            if read.is_empty() {
                return Ok(self.started.then(|| self.finish()));
            }
            let end = read.iter().position(|&byte| byte == b'\n');
            let part = &read[..end.unwrap_or(read.len())];
            // Allow one more byte than the limit, for a carriage return before the line feed.
            if self.line.len() + part.len() > self.line_bytes_max + 1 {
                self.too_long = true;
            }
            if self.too_long {
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(part);
            }
            self.started = true;
            let consumed = part.len() + usize::from(end.is_some());
            self.reader.consume(consumed);
            if end.is_some() {
                return Ok(Some(self.finish()));
            }
        }
    }

    fn finish(&mut self) -> InputLine {
        let mut bytes = std::mem::take(&mut self.line);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if self.number == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        let too_long = std::mem::take(&mut self.too_long) || bytes.len() > self.line_bytes_max;
        self.started = false;
        self.number += 1;
        InputLine { number: self.number, bytes: (!too_long).then_some(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncWriteExt as _, BufReader};

    use super::*;

    async fn lines(text: &[u8], buffer: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = LineReader::new(BufReader::with_capacity(buffer, text), 5);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line.bytes);
            assert_eq!(line.number, all.len() as u64);
        }
        all
    }

    async fn check(text: &[u8], expected: &[Option<&[u8]>]) {
        for buffer in [1, 2, 3, 64] {
            let expected: Vec<_> = expected.iter().map(|line| line.map(<[u8]>::to_vec)).collect();
            assert_eq!(lines(text, buffer).await, expected, "{} by {buffer}", text.escape_ascii());
        }
    }

    #[tokio::test]
    async fn lines_end_with_or_without_a_carriage_return_or_with_the_file() {
        check(b"", &[]).await;
        check(b"a\nb\r\nc", &[Some(b"a"), Some(b"b"), Some(b"c")]).await;
        check(b"a\n\n\n", &[Some(b"a"), Some(b""), Some(b"")]).await;
        check(b"\xffa\rb\n", &[Some(b"\xffa\rb")]).await;
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_read_past() {
        check(b"12345\n", &[Some(b"12345")]).await;
        check(b"12345\r\n", &[Some(b"12345")]).await;
        check(b"123456\nb\n", &[None, Some(b"b")]).await;
        check(b"123456789012345678\r\nb", &[None, Some(b"b")]).await;
        check(b"b\n123456789012345678", &[Some(b"b"), None]).await;
    }

    #[tokio::test]
    async fn the_byte_order_mark_is_no_part_of_the_first_line() {
        check(b"\xEF\xBB\xBFa\n\xEF\xBB\xBFb\n", &[Some(b"a"), Some(b"\xEF\xBB\xBFb")]).await;
    }

    #[tokio::test]
    async fn a_wait_that_is_called_off_loses_nothing() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = LineReader::new(BufReader::new(reader), 5);
        writer.write_all(b"ab").await.unwrap();
        assert!(lines.next().now_or_never().is_none());
        writer.write_all(b"c\n").await.unwrap();
        assert_eq!(lines.next().await.unwrap(), Some(InputLine { number: 1, bytes: Some(b"abc".to_vec()) }));
    }
}
