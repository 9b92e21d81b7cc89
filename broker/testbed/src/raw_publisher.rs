//! A publisher that writes AMQP frames by hand. Client libraries refuse what the protocol allows:
//! text that is not UTF-8, lists nested thousands deep, undefined flags.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(20);
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;
const BODY_BYTES_MAX: usize = 100 << 10;

/// A connection as user `guest`, with one channel in confirm mode.
#[derive(Debug)]
pub struct RawPublisher {
    stream: TcpStream,
}

impl RawPublisher {
    /// Connects to a node on this machine.
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("RabbitMQ listens there");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket takes a timeout");
        let mut publisher = Self { stream };
        publisher.send(b"AMQP\0\0\x09\x01");
        publisher.expect([10, 10]);
        let login = [&[0; 4][..], &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")].concat();
        publisher.method(0, [10, 11], &login);
        let tune = publisher.expect([10, 30]);
        // Accepts the server's limits, without heartbeats.
        publisher.method(0, [10, 31], &[&tune[..6], &[0, 0]].concat());
        publisher.method(0, [10, 40], &[&short(b"/")[..], &[0, 0]].concat());
        publisher.expect([10, 41]);
        publisher.method(1, [20, 10], &[0]);
        publisher.expect([20, 11]);
        publisher.method(1, [85, 10], &[0]);
        publisher.expect([85, 11]);
        publisher
    }

    /// Publishes a message and waits until RabbitMQ has confirmed it. `properties` holds the flags
    /// and the properties after them.
    pub fn publish(&mut self, exchange: &[u8], routing_key: &[u8], properties: &[u8], body: &[u8]) {
        self.method(1, [60, 40], &[&[0, 0][..], &short(exchange), &short(routing_key), &[0]].concat());
        let size = (body.len() as u64).to_be_bytes();
        self.frame(HEADER, 1, &[&[0, 60, 0, 0][..], &size, properties].concat());
        for part in body.chunks(BODY_BYTES_MAX) {
            self.frame(BODY, 1, part);
        }
        self.expect([60, 80]);
    }

    fn method(&mut self, channel: u16, id: [u16; 2], arguments: &[u8]) {
        self.frame(METHOD, channel, &[&id.map(u16::to_be_bytes).concat(), arguments].concat());
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let size = u32::try_from(payload.len()).expect("a frame has a 32-bit size").to_be_bytes();
        self.send(&[&[kind], &channel.to_be_bytes()[..], &size, payload, &[FRAME_END]].concat());
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("RabbitMQ takes what is sent");
    }

    /// Reads the next method, which must have this id, and returns its arguments.
    fn expect(&mut self, id: [u16; 2]) -> Vec<u8> {
        let mut header = [0; 7];
        self.stream.read_exact(&mut header).expect("RabbitMQ answers");
        let size = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
        let mut payload = vec![0; usize::try_from(size).expect("a size") + 1];
        self.stream.read_exact(&mut payload).expect("RabbitMQ answers");
        payload.pop();
        let (got, arguments) = payload.split_at(4);
        assert_eq!(got, id.map(u16::to_be_bytes).concat(), "{}", String::from_utf8_lossy(arguments));
        arguments.to_vec()
    }
}

/// Encodes an AMQP short string.
pub fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("at most 255 bytes")], text].concat()
}

/// Encodes an AMQP long string.
pub fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).expect("a 32-bit size").to_be_bytes(), text].concat()
}

/// Encodes property flags and properties: headers with these entries, and a message id.
pub fn headers_and_id(entries: &[u8], id: &[u8]) -> Vec<u8> {
    [&[0x20, 0x80][..], &long(entries), &short(id)].concat()
}

/// Encodes a header entry whose value is a list nested this many levels deep.
pub fn nested_entry(name: &[u8], levels: usize) -> Vec<u8> {
    let value = (0..levels).fold(b"V".to_vec(), |inner, _| [&b"A"[..], &long(&inner)].concat());
    [short(name), value].concat()
}
