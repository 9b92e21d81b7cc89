//! Sends a file of events, byte for byte, a JSON object a line.
//!
//! Many lines are on their way at once, and settled in their order, so that a broker that is
//! lost leaves a clear place to go on from. A bad line is reported by its number and holds up nobody.

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
use crate::lines::{Line, Lines};
use crate::output::{Output, Published};
use crate::publish::{Publisher, message};

/// Lines that may wait for their confirmation.
const UNCONFIRMED_LINES_MAX: usize = 256;
/// What those may hold together, and one more line.
const UNCONFIRMED_BYTES_MAX: usize = 64 << 20;
/// An event beyond this is a mistake: RabbitMQ's own limit is the same.
const LINE_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 64 << 10;

/// Where events are read from.
#[derive(Debug)]
pub(crate) struct Input {
    path: PathBuf,
    reader: BufReader<File>,
}

/// A line that is ready to be published.
struct Letter {
    line: u64,
    routing_key: String,
    message: broker::Message,
}

/// Opens what is to be sent; `-` is standard input.
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

/// Sends every line, until the interruption; then what is on its way is still seen through.
pub(crate) async fn send(
    publisher: &Publisher,
    output: &mut Output,
    input: Input,
    routing_key: Option<&str>,
    interruption: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let Input { path, reader } = input;
    let mut lines = Lines::new(reader, LINE_BYTES_MAX);
    let mut on_the_way = FuturesOrdered::new();
    let mut bytes_on_the_way = 0;
    let mut tally = Tally::default();
    let mut reading = Ok(true);
    let mut interruption = pin!(interruption);
    loop {
        let has_room = on_the_way.len() < UNCONFIRMED_LINES_MAX && bytes_on_the_way < UNCONFIRMED_BYTES_MAX;
        tokio::select! {
            // Settle before reading on, so that ids appear as soon as they can.
            biased;
            () = &mut interruption, if matches!(reading, Ok(true)) => reading = Err(Failure::Interrupted),
            Some((letter, confirmation)) = on_the_way.next() => {
                let letter: Letter = letter;
                bytes_on_the_way -= letter.message.body.len();
                tally.settle(&letter, confirmation, output)?;
            }
            line = lines.next(), if has_room && matches!(reading, Ok(true)) => match line {
                Ok(Some(line)) => {
                    if let Some(mut letter) = tally.prepare(line, routing_key) {
                        letter.message = publisher.mark(letter.message);
                        bytes_on_the_way += letter.message.body.len();
                        on_the_way.push_back(async move {
                            let confirmation = publisher.publish(&letter.routing_key, &letter.message).await;
                            (letter, confirmation)
                        });
                    }
                }
                Ok(None) => reading = Ok(false),
                Err(problem) => reading = Err(Failure::Input { path: path.clone(), problem }),
            },
            else => break,
        }
    }
    tally.conclude(reading.map(|_| ()))
}

/// What became of the lines so far.
#[derive(Debug, Default)]
struct Tally {
    /// The last line that was read.
    line: u64,
    events: u64,
    bad: u64,
}

impl Tally {
    /// Makes a letter of a line; reports one of which none can be made.
    fn prepare(&mut self, line: Line, routing_key: Option<&str>) -> Option<Letter> {
        self.line = line.number;
        // An empty line is no event, and no fault either: files end with them.
        if line.bytes.as_deref().is_some_and(|bytes| bytes.trim_ascii().is_empty()) {
            return None;
        }
        self.events += 1;
        match letter(line, routing_key) {
            Ok(letter) => Some(letter),
            Err(problem) => {
                self.report(self.line, &problem);
                None
            }
        }
    }

    /// A message that the broker will not have is a bad line; a broker that is gone is the end.
    fn settle(
        &mut self,
        letter: &Letter,
        confirmation: Result<(), Failure>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        match confirmation {
            Ok(()) => output.published(&Published {
                line: Some(letter.line),
                ..Published::new(&letter.routing_key, &letter.message)
            }),
            Err(Failure::Publish(
                refusal @ (PublishError::Unroutable { .. }
                | PublishError::Refused(_)
                | PublishError::Inexpressible(_)
                | PublishError::HeadersTooLarge { .. }),
            )) => {
                self.report(letter.line, &refusal.to_string());
                Ok(())
            }
            Err(failure) => Err(Failure::StoppedAtLine { line: letter.line, what: Box::new(failure) }),
        }
    }

    fn report(&mut self, line: u64, problem: &str) {
        self.bad += 1;
        exit::say(&format!("line {line}: {problem}"));
    }

    /// Everything that was read is settled.
    fn conclude(self, reading: Result<(), Failure>) -> Result<(), Failure> {
        reading.map_err(|what| Failure::StoppedAtLine { line: self.line + 1, what: Box::new(what) })?;
        if self.bad > 0 {
            return Err(Failure::BadLines { bad: self.bad, events: self.events });
        }
        Ok(())
    }
}

fn letter(line: Line, routing_key: Option<&str>) -> Result<Letter, String> {
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
    Ok(Letter { line: line.number, routing_key, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line { number: 7, bytes: Some(text.as_bytes().to_vec()) }
    }

    #[test]
    fn an_event_is_passed_on_byte_for_byte_under_its_own_id() {
        let text = r#" {"event" : "OrderCreated","event_id":"e1", "n":1.0e0} "#;
        let letter = letter(line(text), None).unwrap();
        assert_eq!(letter.message.body, text.as_bytes());
        assert_eq!(letter.routing_key, "order.created");
        assert_eq!(letter.message.properties.message_type.as_deref(), Some("OrderCreated"));
        assert_eq!(letter.message.properties.message_id.as_deref(), Some("e1"));
        assert_eq!(letter.message.properties.content_type.as_deref(), Some("application/json"));
    }

    #[test]
    fn a_cloud_event_says_that_it_is_one() {
        let letter = letter(line(r#"{"specversion":"1.0","id":"1","source":"/","type":"t"}"#), None).unwrap();
        assert_eq!(letter.message.properties.content_type.as_deref(), Some("application/cloudevents+json"));
    }

    #[test]
    fn a_routing_key_that_is_given_goes_before_the_type() {
        assert_eq!(letter(line(r#"{"event":"A"}"#), Some("k")).unwrap().routing_key, "k");
        assert_eq!(letter(line("{}"), Some("k")).unwrap().routing_key, "k");
        assert!(letter(line("{}"), None).err().unwrap().contains("--routing-key"));
    }

    #[test]
    fn empty_lines_are_no_events() {
        let mut tally = Tally::default();
        assert!(tally.prepare(line(" \t"), None).is_none());
        assert_eq!((tally.line, tally.events, tally.bad), (7, 0, 0));
    }
}
