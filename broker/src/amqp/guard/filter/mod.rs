//! Follows the frames from the broker, and rewrites those that lapin might not be able to read. No I/O.

use std::collections::HashMap;
use std::io;

use crate::amqp::guard::preamble::{self, Names};
use crate::amqp::guard::properties;
use crate::amqp::guard::text::{SHORT_STRING_BYTES_MAX, mend};

/// Bytes of a frame's header: type, channel, size.
const FRAME_HEADER_BYTES: usize = 7;
const FRAME_END: u8 = 0xCE;
const FRAME_END_BYTES: usize = 1;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// Bytes of a content header before its flags: class, weight, body size.
const CONTENT_HEADER_BYTES: usize = 12;
const FLAGS_BYTES: usize = 2;
/// Frame size in bytes that every peer accepts (`frame-min-size`).
const FRAME_MIN_SIZE: usize = 4096;
/// Maximum bytes of a method or content header frame, which is buffered whole. RabbitMQ's own limit
/// is 128 KiB unless configured otherwise. Bodies are never buffered.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// One direction of one connection.
#[derive(Debug, Default)]
pub(super) struct Filter {
    state: FrameState,
    /// The beginning of an incomplete frame.
    begun: Vec<u8>,
    /// Frames for lapin, which has read them up to `read_to`.
    passed: Vec<u8>,
    read_to: usize,
    /// Names that lapin could not read, by channel, until their content header arrives.
    names: HashMap<u16, Names>,
}

#[derive(Clone, Copy, Debug, Default)]
enum FrameState {
    /// Before or within the header of a frame.
    #[default]
    Between,
    /// Collects a whole frame of this size, including its header and end.
    Collecting(usize),
    /// Passes on this many more bytes of a frame as they arrive.
    Passing(usize),
    /// The bytes are not frames. All are passed on, and lapin reports the error.
    Foreign,
}

impl Filter {
    /// Takes bytes that came from the broker.
    pub(super) fn push(&mut self, mut input: &[u8]) -> io::Result<()> {
        if self.read_to == self.passed.len() {
            self.passed.clear();
            self.read_to = 0;
        }
        while !input.is_empty() {
            match self.state {
                FrameState::Foreign => {
                    self.passed.extend_from_slice(input);
                    return Ok(());
                }
                FrameState::Passing(rest) => {
                    let count = rest.min(input.len());
                    self.passed.extend_from_slice(&input[..count]);
                    input = &input[count..];
                    self.state = if count == rest { FrameState::Between } else { FrameState::Passing(rest - count) };
                }
                FrameState::Between => {
                    let missing = FRAME_HEADER_BYTES - self.begun.len();
                    if self.begun.is_empty() && input.len() >= FRAME_HEADER_BYTES {
                        self.begin(&input[..FRAME_HEADER_BYTES])?;
                    } else {
                        let count = missing.min(input.len());
                        self.begun.extend_from_slice(&input[..count]);
                        input = &input[count..];
                        if count == missing {
                            let header = std::mem::take(&mut self.begun);
                            self.begin(&header)?;
                            match self.state {
                                FrameState::Collecting(_) => self.begun = header,
                                FrameState::Passing(size) => {
                                    self.passed.extend_from_slice(&header);
                                    self.state = FrameState::Passing(size - header.len());
                                }
                                FrameState::Foreign => self.passed.extend_from_slice(&header),
                                FrameState::Between => {}
                            }
                        }
                    }
                }
                FrameState::Collecting(size) => {
                    let missing = size - self.begun.len();
                    let count = missing.min(input.len());
                    let (part, rest) = input.split_at(count);
                    input = rest;
                    if count < missing {
                        self.begun.extend_from_slice(part);
                    } else if self.begun.is_empty() {
                        self.state = FrameState::Between;
                        self.frame(part)?;
                    } else {
                        self.begun.extend_from_slice(part);
                        let frame = std::mem::take(&mut self.begun);
                        self.state = FrameState::Between;
                        self.frame(&frame)?;
                        self.begun = frame;
                        self.begun.clear();
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the bytes that lapin has not read yet.
    pub(super) fn unread(&self) -> &[u8] {
        &self.passed[self.read_to..]
    }

    pub(super) fn mark_read(&mut self, count: usize) {
        self.read_to += count;
    }

    /// Decides by the frame's header how to handle it.
    fn begin(&mut self, header: &[u8]) -> io::Result<()> {
        let size = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let whole = size.saturating_add(FRAME_HEADER_BYTES + FRAME_END_BYTES);
        self.state = match header[0] {
            METHOD | CONTENT_HEADER if whole > FRAME_BYTES_MAX => {
                return Err(broken(format!("it sent a frame of {size} bytes, and may send {FRAME_BYTES_MAX}")));
            }
            METHOD | CONTENT_HEADER => FrameState::Collecting(whole),
            BODY | HEARTBEAT => FrameState::Passing(whole),
            // A broker of another version answers with a protocol header, an HTTP server with text.
            _ => FrameState::Foreign,
        };
        Ok(())
    }

    /// Passes on a complete method or content header frame.
    fn frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let (Some(channel), Some(payload)) = (frame.get(1..3), payload(frame)) else {
            // The end octet is missing. lapin reports that.
            self.passed.extend_from_slice(frame);
            return Ok(());
        };
        let channel = u16::from_be_bytes([channel[0], channel[1]]);
        if frame[0] == METHOD {
            self.method(channel, frame, payload)
        } else {
            self.content_header(channel, frame, payload);
            Ok(())
        }
    }

    fn method(&mut self, channel: u16, frame: &[u8], payload: &[u8]) -> io::Result<()> {
        match Method::of(payload) {
            Some(Method::ConnectionStart) => {
                // The server's properties: the only table that a broker sends on its own.
                if let Some(problem) = properties::problem_of_table(payload.get(6..).unwrap_or_default()) {
                    return Err(broken(format!("its greeting cannot be read: {problem}")));
                }
            }
            Some(Method::Content(fields)) => {
                if let Some((names, mended)) = mend_content(payload, fields) {
                    self.names.insert(channel, names);
                    self.write_frame(METHOD, channel, &[&mended]);
                    return Ok(());
                }
                if !self.names.is_empty() {
                    self.names.remove(&channel);
                }
            }
            Some(Method::Text { before }) => {
                if let Some(mended) = mend_text(payload, before) {
                    self.write_frame(METHOD, channel, &[&mended]);
                    return Ok(());
                }
            }
            None => {}
        }
        self.passed.extend_from_slice(frame);
        Ok(())
    }

    /// Moves the properties to the front of the body.
    fn content_header(&mut self, channel: u16, frame: &[u8], payload: &[u8]) {
        let fields = payload.split_at_checked(CONTENT_HEADER_BYTES).filter(|(_, raw)| raw.len() >= FLAGS_BYTES);
        let Some((head, raw)) = fields else {
            self.passed.extend_from_slice(frame);
            return;
        };
        let names = if self.names.is_empty() { None } else { self.names.remove(&channel) };
        let mut front = Vec::with_capacity(raw.len() + 16);
        preamble::write(&mut front, names.as_ref(), raw);
        let mut body_bytes = [0; size_of::<u64>()];
        body_bytes.copy_from_slice(&head[4..]);
        // If the broker sent a wrong size, lapin notices when the body ends too early.
        let body_bytes = u64::from_be_bytes(body_bytes).saturating_add(front.len() as u64);
        self.write_frame(CONTENT_HEADER, channel, &[&head[..4], &body_bytes.to_be_bytes(), &[0; FLAGS_BYTES]]);
        for part in front.chunks(FRAME_MIN_SIZE - FRAME_HEADER_BYTES - FRAME_END_BYTES) {
            self.write_frame(BODY, channel, &[part]);
        }
    }

    fn write_frame(&mut self, kind: u8, channel: u16, payload: &[&[u8]]) {
        let size: usize = payload.iter().map(|part| part.len()).sum();
        // At most as large as the received frame, or a part of it.
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.passed.push(kind);
        self.passed.extend_from_slice(&channel.to_be_bytes());
        self.passed.extend_from_slice(&size.to_be_bytes());
        for part in payload {
            self.passed.extend_from_slice(part);
        }
        self.passed.push(FRAME_END);
    }
}

/// Methods that carry text chosen by someone else.
enum Method {
    ConnectionStart,
    /// A method with content: exchange and routing key follow these fields.
    Content(&'static [Field]),
    /// A human-readable text after this many bytes.
    Text {
        before: usize,
    },
}

#[derive(Clone, Copy)]
enum Field {
    Bytes(usize),
    ShortString,
}

impl Method {
    fn of(payload: &[u8]) -> Option<Self> {
        let (id, _) = payload.split_first_chunk::<4>()?;
        let [class, method] = [u16::from_be_bytes([id[0], id[1]]), u16::from_be_bytes([id[2], id[3]])];
        Some(match (class, method) {
            (10, 10) => Self::ConnectionStart,
            // connection.close and channel.close: a code, then the text. RabbitMQ cuts long text at
            // a byte, which may be inside a character.
            (10, 50) | (20, 40) => Self::Text { before: 2 },
            // connection.blocked
            (10, 60) => Self::Text { before: 0 },
            // basic.return: code, text
            (60, 50) => Self::Content(&[Field::Bytes(2), Field::ShortString]),
            // basic.deliver: consumer tag, delivery tag, whether it is redelivered
            (60, 60) => Self::Content(&[Field::ShortString, Field::Bytes(9)]),
            // basic.get-ok: delivery tag, whether it is redelivered
            (60, 71) => Self::Content(&[Field::Bytes(9)]),
            _ => return None,
        })
    }
}

fn payload(frame: &[u8]) -> Option<&[u8]> {
    let (end, frame) = frame.split_last()?;
    (*end == FRAME_END).then(|| frame.get(FRAME_HEADER_BYTES..)).flatten()
}

/// Takes a short string off the front.
fn short_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first()?;
    let (text, behind) = behind.split_at_checked(usize::from(*length))?;
    *rest = behind;
    Some(text)
}

/// Returns the names, and the method with mended text, if lapin could not read the original.
fn mend_content(payload: &[u8], fields: &[Field]) -> Option<(Names, Vec<u8>)> {
    if str::from_utf8(payload).is_ok() {
        return None;
    }
    let mut rest = payload.get(4..)?;
    let mut mended = payload[..4].to_vec();
    let mut is_readable = true;
    for field in fields {
        match field {
            Field::Bytes(count) => {
                let (bytes, behind) = rest.split_at_checked(*count)?;
                mended.extend_from_slice(bytes);
                rest = behind;
            }
            Field::ShortString => {
                let text = short_string(&mut rest)?;
                is_readable &= str::from_utf8(text).is_ok();
                push_short_string(&mut mended, &mend(text));
            }
        }
    }
    let (exchange, routing_key) = (short_string(&mut rest)?, short_string(&mut rest)?);
    if is_readable && [exchange, routing_key].iter().all(|text| str::from_utf8(text).is_ok()) {
        return None;
    }
    let names = Names { exchange: mend(exchange), routing_key: mend(routing_key) };
    push_short_string(&mut mended, &names.exchange);
    push_short_string(&mut mended, &names.routing_key);
    mended.extend_from_slice(rest);
    Some((names, mended))
}

/// Returns the method with its text mended, if lapin could not read the original.
fn mend_text(payload: &[u8], before: usize) -> Option<Vec<u8>> {
    let (head, mut rest) = payload.split_at_checked(4 + before)?;
    let text = short_string(&mut rest)?;
    if str::from_utf8(text).is_ok() {
        return None;
    }
    let mut mended = head.to_vec();
    push_short_string(&mut mended, &mend(text));
    mended.extend_from_slice(rest);
    Some(mended)
}

fn push_short_string(to: &mut Vec<u8>, text: &str) {
    // `mend` keeps to the limit.
    debug_assert!(text.len() <= SHORT_STRING_BYTES_MAX, "{}", text.len());
    to.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    to.extend_from_slice(text.as_bytes());
}

fn broken(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests;
