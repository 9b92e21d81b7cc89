//! Checks the guard's output with lapin's own parser.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::AMQPMethod as Basic;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::amqp::guard::preamble::{GuardedContent, split};
use crate::amqp::guard::properties::read;
use crate::{Properties, Value};

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind], &channel.to_be_bytes()[..], &size, payload, &[FRAME_END]].concat()
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn deliver(exchange: &[u8], routing_key: &[u8]) -> Vec<u8> {
    let payload =
        [&[0, 60, 0, 60][..], &short(b"tag"), &7_u64.to_be_bytes(), &[1], &short(exchange), &short(routing_key)];
    frame(METHOD, 3, &payload.concat())
}

fn message(properties: &[u8], body: &[u8]) -> Vec<u8> {
    let header = [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), properties].concat();
    let mut frames = frame(CONTENT_HEADER, 3, &header);
    for part in body.chunks(1000) {
        frames.extend(frame(BODY, 3, part));
    }
    frames
}

/// Passes these bytes through the guard in pieces of this size, and returns its output.
fn pass(bytes: &[u8], piece: usize) -> io::Result<Vec<u8>> {
    let mut filter = Filter::default();
    let mut passed = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        filter.push(piece)?;
        // lapin does not always read everything either.
        let count = filter.unread().len().min(5000);
        passed.extend_from_slice(&filter.unread()[..count]);
        filter.mark_read(count);
    }
    passed.extend_from_slice(filter.unread());
    Ok(passed)
}

/// Parses the output as lapin does; panics where lapin would end the connection.
fn as_lapin(mut bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).expect("lapin can read it");
        let size = bytes.len() - rest.len();
        assert!(size <= 128 << 10, "lapin refuses a frame of {size} bytes");
        frames.push(frame);
        bytes = rest;
    }
    frames
}

/// Returns the one message in these frames: exchange and routing key as lapin reads them, and the
/// body with the guard's preamble split off.
fn received(frames: Vec<AMQPFrame>) -> (String, String, GuardedContent) {
    let mut frames = frames.into_iter();
    let Some(AMQPFrame::Method(3, AMQPClass::Basic(Basic::Deliver(method)))) = frames.next() else {
        panic!("no method")
    };
    assert_eq!((method.delivery_tag, method.redelivered), (7, true));
    let Some(AMQPFrame::Header(3, header)) = frames.next() else { panic!("no header") };
    let mut body = Vec::new();
    for frame in frames {
        let AMQPFrame::Body(3, part) = frame else { panic!("{frame:?}") };
        body.extend(part);
    }
    assert_eq!(header.body_size, body.len() as u64);
    (method.exchange.to_string(), method.routing_key.to_string(), split(body).expect("it came by the guard"))
}

fn nested(levels: usize) -> Vec<u8> {
    let mut value = vec![b'V'];
    for _ in 0..levels {
        let length = u32::try_from(value.len()).unwrap().to_be_bytes();
        value = [&[b'A'][..], &length, &value].concat();
    }
    value
}

fn with_headers(entries: &[u8]) -> Vec<u8> {
    let length = u32::try_from(entries.len()).unwrap().to_be_bytes();
    [&[0x20, 0x80][..], &length, entries, &short(b"id-1")].concat()
}

#[test]
fn a_header_of_any_depth_is_passed_on_in_a_form_that_can_be_read() {
    for (levels, is_read) in [(1, true), (32, true), (33, false), (2_000, false), (26_000, false)] {
        let entries = [short(b"good"), vec![b'V'], short(b"deep"), nested(levels), short(b"last"), vec![b't', 1]];
        let raw = with_headers(&entries.concat());
        let passed = pass(&[deliver(b"orders", b"order.created"), message(&raw, b"{}")].concat(), 64 << 10).unwrap();
        let (exchange, routing_key, content) = received(as_lapin(&passed));
        assert_eq!((&*exchange, &*routing_key), ("orders", "order.created"));
        assert_eq!((&content.body[..], &content.properties[..], content.names), (&b"{}"[..], &raw[..], None));
        let reading = read(&content.properties);
        assert_eq!(reading.problem.is_none(), is_read, "{levels} {:?}", reading.problem);
        assert_eq!(reading.properties.headers.contains_key("deep"), is_read, "{levels}");
        // The entries before and after it survive.
        assert_eq!(reading.properties.headers["good"], Value::Void);
        assert_eq!(reading.properties.headers["last"], Value::Bool(true));
        assert_eq!(reading.properties.message_id.as_deref(), Some("id-1"));
    }
}

#[test]
fn text_that_is_not_utf_8_arrives_as_latin_1() {
    let raw =
        [&[0x20, 0x88][..], &[0, 0, 0, 8], &short(b"na\xefve"), &[b't', 1], &short(b"\xe4-1"), &short(b"app\xff")];
    let bytes = [deliver(b"orders", b"order.K\xf6ln"), message(&raw.concat(), b"{}")].concat();
    let (_, routing_key, content) = received(as_lapin(&pass(&bytes, 3).unwrap()));
    assert_eq!(routing_key, "order.Köln");
    assert_eq!(content.names, Some(Names { exchange: "orders".to_owned(), routing_key }));
    let properties = Properties {
        message_id: Some("ä-1".to_owned()),
        app_id: Some("appÿ".to_owned()),
        headers: [("naïve".to_owned(), Value::Bool(true))].into(),
        ..Properties::default()
    };
    assert_eq!(read(&content.properties), properties::Reading { properties, problem: None });
}

#[test]
fn the_text_of_a_refusal_may_be_cut_in_the_middle_of_a_character() {
    let text = [&b"NOT_FOUND - no queue 'K"[..], &[0xc3]].concat();
    for (method, before) in [([0, 20, 0, 40], 2), ([0, 10, 0, 50], 2), ([0, 10, 0, 60], 0)] {
        let behind: &[u8] = if before == 0 { &[] } else { &[0; 4] };
        let payload = [&method[..], &vec![1; before], &short(&text), behind].concat();
        let frames = as_lapin(&pass(&frame(METHOD, 0, &payload), 8).unwrap());
        assert!(format!("{frames:?}").contains("no queue 'KÃ"), "{frames:?}");
    }
}

#[test]
fn a_header_that_fills_a_frame_fits_all_the_same() {
    let size = (128 << 10) - 8 - 12 - 2 - 4 - 5 - 2 - 5;
    let entries = [&short(b"a")[..], b"S", &u32::try_from(size).unwrap().to_be_bytes(), &vec![b'x'; size]].concat();
    let raw = with_headers(&entries);
    let bytes = [deliver(b"", b"q"), message(&raw, b"")].concat();
    let (_, _, content) = received(as_lapin(&pass(&bytes, 4000).unwrap()));
    assert_eq!((content.body.len(), &content.properties[..]), (0, &raw[..]));
}

#[test]
fn what_is_no_amqp_is_left_to_lapin() {
    for bytes in [&b"AMQP\0\0\x09\x01"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x01"] {
        assert_eq!(pass(bytes, 2).unwrap(), if bytes.len() < FRAME_HEADER_BYTES { &[] } else { bytes });
    }
    let error = pass(&[METHOD, 0, 0, 0xff, 0xff, 0xff, 0xff], 7).unwrap_err();
    assert_eq!(error.to_string(), "it sent a frame of 4294967295 bytes, and may send 67108864");
}

#[test]
fn a_greeting_that_is_nested_too_deep_is_refused() {
    let table = |levels| [short(b"capabilities"), nested(levels)].concat();
    let start = |levels| {
        let table = table(levels);
        let length = u32::try_from(table.len()).unwrap().to_be_bytes();
        let payload = [&[0, 10, 0, 10, 0, 9][..], &length, &table, &[0, 0, 0, 5], b"PLAIN", &[0, 0, 0, 0]].concat();
        frame(METHOD, 0, &payload)
    };
    assert_eq!(as_lapin(&pass(&start(2), 9).unwrap()).len(), 1);
    let error = pass(&start(2_000), 9).unwrap_err().to_string();
    assert!(error.starts_with("its greeting cannot be read: "), "{error}");
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let text =
        || prop_oneof![vec(any::<u8>(), 0..20), "[a-z.]{0,20}".prop_map(String::into_bytes), vec(0x80_u8.., 200..255)];
    let raw = prop_oneof![
        vec(any::<u8>(), 2..200),
        (0..100_usize).prop_map(|levels| with_headers(&[short(b"deep"), nested(levels)].concat())),
        (text(), text()).prop_map(|(name, id)| {
            let entries = [short(&name), vec![b'V']].concat();
            [&[0x20, 0x80][..], &u32::try_from(entries.len()).unwrap().to_be_bytes(), &entries, &short(&id)].concat()
        }),
    ];
    (text(), text(), raw, vec(any::<u8>(), 0..3000))
        .prop_map(|(exchange, key, raw, body)| [deliver(&exchange, &key), message(&raw, &body)].concat())
}

proptest! {
    #[test]
    fn every_message_is_passed_on_so_that_lapin_can_read_it(
        messages in vec(frames(), 1..4),
        piece in 1..9000_usize,
    ) {
        for bytes in &messages {
            let (_, _, content) = received(as_lapin(&pass(bytes, piece).unwrap()));
            let reading = read(&content.properties);
            let names = content.names.iter().flat_map(|names| [&names.exchange, &names.routing_key]);
            let ids = reading.properties.message_id.iter().chain(reading.properties.headers.keys());
            for text in names.chain(ids) {
                prop_assert!(text.len() <= SHORT_STRING_BYTES_MAX);
            }
        }
        // The output does not depend on how the bytes were cut.
        let all = messages.concat();
        prop_assert_eq!(pass(&all, piece).unwrap(), pass(&all, all.len()).unwrap());
    }

    #[test]
    fn any_bytes_at_all_do_no_harm(bytes in vec(any::<u8>(), 0..2000), piece in 1..100_usize, kind in 0..9_u8) {
        let _ = pass(&bytes, piece);
        let _ = pass(&frame(kind, 1, &bytes), piece);
        let _ = read(&bytes);
        let _ = split(bytes);
    }
}
