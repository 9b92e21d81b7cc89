//! Sends a file of events, one JSON object per line, byte for byte.
//!
//! Many lines are in flight at once and are settled in order, so that a lost broker leaves a clear line to resume
//! from. A bad line is reported by its number and does not block the others.

use std::future::Future;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::pin::pin;

use broker::PublishError;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::fs::File;
use tokio::io::BufReader;

use crate::event::Event;
use crate::exit::{self, Failure};
use crate::lines::{InputLine, LineReader};
use crate::output::{Output, Published};
use crate::publish::{Publisher, message};

/// Maximum number of unconfirmed lines.
const UNCONFIRMED_LINES_MAX: usize = 256;
/// Maximum bytes of the unconfirmed lines. One more line may exceed it.
const UNCONFIRMED_BYTES_MAX: usize = 64 << 20;
/// Maximum bytes of an event. A larger one is a mistake; RabbitMQ has the same limit.
const LINE_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 64 << 10;

/// The source of events.
#[derive(Debug)]
pub(crate) struct Input {
    path: PathBuf,
    reader: BufReader<File>,
}

/// An event that is ready to be published.
struct PreparedEvent {
    line: u64,
    routing_key: String,
    message: broker::Message,
}

/// Opens the file to send; `-` is standard input.
pub(crate) async fn open(path: PathBuf) -> Result<Input, Failure> {
    let opened = if path.as_os_str() == "-" {
        io::stdin().as_fd().try_clone_to_owned().map(|standard_input| File::from_std(standard_input.into()))
    } else {
        File::open(&path).await
    };
    match opened {
        Ok(file) => Ok(Input { path, reader: BufReader::with_capacity(READ_BYTES, file) }),
        Err(problem) => Err(Failure::Input { path, problem }),
    }
}

/// Sends every line. After an interruption, it still waits for the lines in flight.
pub(crate) async fn send(
    publisher: &Publisher,
    output: &mut Output,
    input: Input,
    routing_key: Option<&str>,
    interruption: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let Input { path, reader } = input;
    let mut lines = LineReader::new(reader, LINE_BYTES_MAX);
    let mut on_the_way = FuturesOrdered::new();
    let mut bytes_on_the_way = 0;
    let mut progress = SendProgress::default();
    let mut reading = Ok(true);
    let mut interruption = pin!(interruption);
    loop {
        let has_room = on_the_way.len() < UNCONFIRMED_LINES_MAX && bytes_on_the_way < UNCONFIRMED_BYTES_MAX;
        tokio::select! {
            // Settle before reading on, so that ids appear as soon as they can.
            biased;
            () = &mut interruption, if matches!(reading, Ok(true)) => reading = Err(Failure::Interrupted),
            Some((prepared, confirmation)) = on_the_way.next() => {
                let prepared: PreparedEvent = prepared;
                bytes_on_the_way -= prepared.message.body.len();
                progress.settle(&prepared, confirmation, output)?;
            }
            line = lines.next(), if has_room && matches!(reading, Ok(true)) => match line {
                Ok(Some(line)) => {
                    if let Some(mut prepared) = progress.prepare(line, routing_key) {
                        prepared.message = publisher.mark(prepared.message);
                        bytes_on_the_way += prepared.message.body.len();
                        on_the_way.push_back(async move {
                            let confirmation = publisher.publish(&prepared.routing_key, &prepared.message).await;
                            (prepared, confirmation)
                        });
                    }
                }
                Ok(None) => reading = Ok(false),
                Err(problem) => reading = Err(Failure::Input { path: path.clone(), problem }),
            },
            else => break,
        }
    }
    progress.conclude(reading.map(|_| ()))
}

/// Progress of the lines so far.
#[derive(Debug, Default)]
struct SendProgress {
    /// Number of the last line that was read.
    line: u64,
    events: u64,
    bad: u64,
}

impl SendProgress {
    /// Prepares the event on a line. Reports the line if it holds no valid event.
    fn prepare(&mut self, line: InputLine, routing_key: Option<&str>) -> Option<PreparedEvent> {
        self.line = line.number;
        // Skip empty lines without an error: files may end with them.
        if line.bytes.as_deref().is_some_and(|bytes| bytes.trim_ascii().is_empty()) {
            return None;
        }
        self.events += 1;
        match prepared_event(line, routing_key) {
            Ok(prepared) => Some(prepared),
            Err(problem) => {
                self.report(self.line, &problem);
                None
            }
        }
    }

    /// Settles a line. A message that the broker refuses is a bad line; a lost broker ends the sending.
    fn settle(
        &mut self,
        prepared: &PreparedEvent,
        confirmation: Result<(), Failure>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        match confirmation {
            Ok(()) => output.published(&Published {
                line: Some(prepared.line),
                ..Published::new(&prepared.routing_key, &prepared.message)
            }),
            Err(Failure::Publish(
                refusal @ (PublishError::Unroutable { .. }
                | PublishError::Refused(_)
                | PublishError::Inexpressible(_)
                | PublishError::HeadersTooLarge { .. }),
            )) => {
                self.report(prepared.line, &refusal.to_string());
                Ok(())
            }
            Err(failure) => Err(Failure::StoppedAtLine { line: prepared.line, what: Box::new(failure) }),
        }
    }

    fn report(&mut self, line: u64, problem: &str) {
        self.bad += 1;
        exit::say(&format!("line {line}: {problem}"));
    }

    /// Returns the result, once every line that was read is settled.
    fn conclude(self, reading: Result<(), Failure>) -> Result<(), Failure> {
        reading.map_err(|what| Failure::StoppedAtLine { line: self.line + 1, what: Box::new(what) })?;
        if self.bad > 0 {
            return Err(Failure::BadLines { bad: self.bad, events: self.events });
        }
        Ok(())
    }
}

fn prepared_event(line: InputLine, routing_key: Option<&str>) -> Result<PreparedEvent, String> {
    let body = line.bytes.ok_or_else(|| format!("longer than {} MiB", LINE_BYTES_MAX >> 20))?;
    let event = Event::read(&body)?;
    let routing_key = routing_key
        .map(str::to_owned)
        .or_else(|| event.routing_key())
        .ok_or("neither \"event\" nor \"type\" is there to route it by: add one, or give --routing-key")?;
    let mut message = message(Bytes::from(body), event.kind, event.id);
    if event.structured {
        message.properties.content_type = Some("application/cloudevents+json".to_owned());
    }
    Ok(PreparedEvent { line: line.number, routing_key, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> InputLine {
        InputLine { number: 7, bytes: Some(text.as_bytes().to_vec()) }
    }

    #[test]
    fn an_event_is_passed_on_byte_for_byte_under_its_own_id() {
        let text = r#" {"event" : "OrderCreated","event_id":"e1", "n":1.0e0} "#;
        let prepared = prepared_event(line(text), None).unwrap();
        assert_eq!(prepared.message.body, text.as_bytes());
        assert_eq!(prepared.routing_key, "order.created");
        assert_eq!(prepared.message.properties.message_type.as_deref(), Some("OrderCreated"));
        assert_eq!(prepared.message.properties.message_id.as_deref(), Some("e1"));
        assert_eq!(prepared.message.properties.content_type.as_deref(), Some("application/json"));
    }

    #[test]
    fn a_cloud_event_says_that_it_is_one() {
        let prepared = prepared_event(line(r#"{"specversion":"1.0","id":"1","source":"/","type":"t"}"#), None).unwrap();
        assert_eq!(prepared.message.properties.content_type.as_deref(), Some("application/cloudevents+json"));
    }

    #[test]
    fn a_routing_key_that_is_given_goes_before_the_type() {
        assert_eq!(prepared_event(line(r#"{"event":"A"}"#), Some("k")).unwrap().routing_key, "k");
        assert_eq!(prepared_event(line("{}"), Some("k")).unwrap().routing_key, "k");
        assert!(prepared_event(line("{}"), None).err().unwrap().contains("--routing-key"));
    }

    #[test]
    fn empty_lines_are_no_events() {
        let mut progress = SendProgress::default();
        assert!(progress.prepare(line(" \t"), None).is_none());
        assert_eq!((progress.line, progress.events, progress.bad), (7, 0, 0));
    }
}
