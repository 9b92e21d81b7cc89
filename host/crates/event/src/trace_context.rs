//! The W3C trace context (<https://www.w3.org/TR/trace-context/>): `traceparent` names the trace and the parent span,
//! `tracestate` holds additions of tracing systems.
//!
//! A header that breaks the rules counts as absent. This module never starts a trace.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Names of both, in headers and among an event's extensions.
pub const PARENT: &str = "traceparent";
pub const STATE: &str = "tracestate";

/// Length of a version 00 `traceparent` in bytes. Later versions may append to it.
const PARENT_BYTES: usize = 55;
/// Maximum bytes of a `tracestate`. A longer one loses members, first those longer than [`LARGE_MEMBER_BYTES`].
const STATE_BYTES_MAX: usize = 512;
const STATE_MEMBERS_MAX: usize = 32;
const LARGE_MEMBER_BYTES: usize = 128;

/// Parses a publisher's trace context. An invalid `state` does not invalidate a good `parent`.
pub fn parse(parent: &str, state: Option<&str>) -> Option<SpanContext> {
    let bytes = parent.as_bytes();
    let head = bytes.get(..PARENT_BYTES)?;
    let is_written_well = head.iter().enumerate().all(|(at, byte)| match at {
        2 | 35 | 52 => *byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    });
    let ends_well = match (&head[..2], bytes.get(PARENT_BYTES)) {
        (b"ff", _) => false,
        (b"00", rest) => rest.is_none(),
        (_, rest) => rest.is_none_or(|byte| *byte == b'-'),
    };
    if !is_written_well || !ends_well {
        return None;
    }
    let trace = TraceId::from_hex(parent.get(3..35)?).ok()?;
    let cause = SpanId::from_hex(parent.get(36..52)?).ok()?;
    // Keep only the flag that version 00 defines. The meaning of others is not ours to pass on.
    let flags = TraceFlags::new(u8::from_str_radix(parent.get(53..55)?, 16).ok()?) & TraceFlags::SAMPLED;
    let state = state.map(parse_state).unwrap_or_default();
    Some(SpanContext::new(trace, cause, flags, true, state)).filter(SpanContext::is_valid)
}

/// Whether the text is a valid `traceparent`.
pub fn is_parent(text: &str) -> bool {
    parse(text, None).is_some()
}

/// Formats the context as a version 00 `traceparent`.
pub fn to_parent(context: &SpanContext) -> String {
    let flags = (context.trace_flags() & TraceFlags::SAMPLED).to_u8();
    format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
}

/// Formats the state as `tracestate`; `None` if it is empty.
pub fn to_state(context: &SpanContext) -> Option<String> {
    Some(context.trace_state().header()).filter(|text| !text.is_empty())
}

/// Parses a `tracestate`. One invalid member discards all of it; one that is too long is shortened.
fn parse_state(text: &str) -> TraceState {
    let trimmed = text.split(',').map(|member| member.trim_matches([' ', '\t']));
    let mut members: Vec<&str> = trimmed.filter(|member| !member.is_empty()).collect();
    let is_written_well = |member: &&str| {
        let pair = member.split_once('=');
        pair.is_some_and(|(key, value)| {
            !key.is_empty()
                && !value.is_empty()
                && !value.contains('=')
                && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        })
    };
    if members.len() > STATE_MEMBERS_MAX || !members.iter().all(is_written_well) {
        return TraceState::default();
    }
    while members.iter().map(|member| member.len() + 1).sum::<usize>() > STATE_BYTES_MAX + 1 {
        let large = members.iter().rposition(|member| member.len() > LARGE_MEMBER_BYTES);
        members.remove(large.unwrap_or(members.len() - 1));
    }
    // The library checks which keys are valid, and the lengths of keys and values.
    members.join(",").parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_parent_follows_the_rules_to_the_letter_or_is_none() {
        let zeros = "0".repeat(32);
        for (parent, expected) in [
            (format!("00-{TRACE}-{SPAN}-01"), Some("01")),
            (format!("00-{TRACE}-{SPAN}-00"), Some("00")),
            // Unknown flags.
            (format!("00-{TRACE}-{SPAN}-ff"), Some("01")),
            (format!("00-{TRACE}-{SPAN}-02"), Some("00")),
            // Later versions.
            (format!("01-{TRACE}-{SPAN}-01"), Some("01")),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"), Some("01")),
            (format!("cc-{TRACE}-{SPAN}-01-"), Some("01")),
            (format!("cc-{TRACE}-{SPAN}-01.what"), None),
            (format!("cc-{TRACE}-{SPAN}-010"), None),
            // This version is reserved and never valid.
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}-01-more"), None),
            (format!("00-{TRACE}-{SPAN}-01-"), None),
            (format!("00-{TRACE}-{SPAN}-01 "), None),
            (format!(" 00-{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}-1"), None),
            (format!("00-{TRACE}-{SPAN}-+1"), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (format!("0-{TRACE}-{SPAN}-01"), None),
            (format!("00-{zeros}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{}-01", &zeros[..16]), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), None),
            (format!("0A-{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}-0A"), None),
            (format!("00-{}g-{SPAN}-01", &TRACE[1..]), None),
            (format!("00_{TRACE}_{SPAN}_01"), None),
            (format!("00-{}ü-{SPAN}-01", &TRACE[2..]), None),
            (String::new(), None),
            ("-".repeat(55), None),
        ] {
            let context = parse(&parent, None);
            let flags = context.as_ref().map(to_parent);
            let expected = expected.map(|flags| format!("00-{TRACE}-{SPAN}-{flags}"));
            assert_eq!(flags, expected, "{parent:?}");
            assert_eq!(is_parent(&parent), context.is_some());
            assert!(context.is_none_or(|context| context.is_remote()));
        }
    }

    fn state(text: &str) -> Option<String> {
        to_state(&parse(&format!("00-{TRACE}-{SPAN}-01"), Some(text)).expect("a bad state spoils nothing"))
    }

    #[test]
    fn a_state_is_passed_on_or_left_out_as_a_whole() {
        let member = |number: usize| format!("k{number}=v");
        let many = |count: usize| (0..count).map(member).collect::<Vec<_>>().join(",");
        for (text, expected) in [
            ("a=1".to_owned(), Some("a=1")),
            ("a=1,b=2".to_owned(), Some("a=1,b=2")),
            (" a=1 ,\t,b=2 , ".to_owned(), Some("a=1,b=2")),
            ("tenant@vendor=x y".to_owned(), Some("tenant@vendor=x y")),
            ("0_-*/=~!".to_owned(), Some("0_-*/=~!")),
            (many(32), Some(many(32).as_str())),
            (many(33), None),
            (format!("{}=1", "k".repeat(256)), Some(format!("{}=1", "k".repeat(256)).as_str())),
            (format!("{}=1", "k".repeat(257)), None),
            (format!("a={}", "v".repeat(257)), None),
            (String::new(), None),
            ("a".to_owned(), None),
            ("a=".to_owned(), None),
            ("=1".to_owned(), None),
            ("a=1=2".to_owned(), None),
            ("A=1".to_owned(), None),
            ("a b=1".to_owned(), None),
            ("a=1,b".to_owned(), None),
            ("a=\r\nx: y".to_owned(), None),
            ("a=ü".to_owned(), None),
        ] {
            assert_eq!(state(&text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_state_that_is_too_long_loses_its_large_members_first() {
        let (large, small) = ("v".repeat(200), "v".repeat(100));
        let text = format!("a={small},b={large},c={small},d={large}");
        assert_eq!(state(&text), Some(format!("a={small},b={large},c={small}")));
        let text = (0..6).map(|number| format!("k{number}={small}")).collect::<Vec<_>>().join(",");
        assert_eq!(state(&text).map(|text| text.matches('=').count()), Some(4));
    }
}
