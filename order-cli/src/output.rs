//! Standard output holds only data: an id per line or, with `--json`, a JSON object per line.

use std::io::{self, ErrorKind, LineWriter, Stdout, Write};

use broker::{Message, Value};
use serde::Serialize;

use crate::exit::Failure;
use crate::trace;

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Text for people and for `xargs`.
    Text,
    /// JSON for programs.
    Json,
    /// No output.
    Quiet,
}

/// Writer of the results.
#[derive(Debug)]
pub(crate) struct Output<W: Write = LineWriter<Stdout>> {
    format: Format,
    writer: Option<W>,
}

/// A message that the broker has confirmed.
#[derive(Debug, Serialize)]
pub(crate) struct Published<'a> {
    /// Line number in the input file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u64>,
    /// Event type, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<&'a str>,
    /// Order id, if order-cli made the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order_id: Option<&'a str>,
    /// Message id.
    pub(crate) message_id: Option<&'a str>,
    /// Routing key.
    pub(crate) routing_key: &'a str,
    /// Trace of the message, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<String>,
}

impl<'a> Published<'a> {
    /// Reads the fields from a message.
    pub(crate) fn new(routing_key: &'a str, message: &'a Message) -> Self {
        let properties = &message.properties;
        Self {
            line: None,
            event: properties.message_type.as_deref(),
            order_id: None,
            message_id: properties.message_id.as_deref(),
            routing_key,
            traceparent: properties.headers.get(trace::HEADER).and_then(Value::to_text),
        }
    }
}

impl Output {
    /// Writes to standard output.
    pub(crate) fn stdout(format: Format) -> Self {
        Self { format, writer: Some(LineWriter::new(io::stdout())) }
    }
}

impl<W: Write> Output<W> {
    /// Returns the output format.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Prints one published event: the order id, or the message id of an event that order-cli did not make.
    pub(crate) fn published(&mut self, published: &Published<'_>) -> Result<(), Failure> {
        self.show(published, || published.order_id.or(published.message_id).unwrap_or_default().to_owned())
    }

    /// Prints any other value.
    pub(crate) fn show<T: Serialize>(&mut self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Text => self.line(&text()),
            Format::Json => {
                let json = serde_json::to_string(value).map_err(|error| Failure::Output(error.into()))?;
                self.line(&json)
            }
            Format::Quiet => Ok(()),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), Failure> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        match writeln!(writer, "{line}") {
            // A reader that stops early (`| head -1`) must not stop the sending.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.writer = None,
            Err(error) => return Err(Failure::Output(error)),
            Ok(()) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone(usize);

    impl Write for Gone {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_leaves_stops_nothing() {
        let mut output = Output { format: Format::Text, writer: Some(Gone(1)) };
        for _ in 0..3 {
            output.show(&(), || "id".to_owned()).unwrap();
        }
        assert!(output.writer.is_none());
    }

    #[test]
    fn an_order_is_shown_by_its_own_id() {
        let message = Message::default();
        let mut published = Published::new("order.created", &message);
        published.order_id = Some("4711");
        for (format, expected) in [
            (Format::Text, "4711\n"),
            (Format::Json, "{\"order_id\":\"4711\",\"message_id\":null,\"routing_key\":\"order.created\"}\n"),
            (Format::Quiet, ""),
        ] {
            let mut output = Output { format, writer: Some(Vec::new()) };
            output.published(&published).unwrap();
            assert_eq!(String::from_utf8(output.writer.unwrap()).unwrap(), expected);
        }
    }
}
