//! Headers for every kind of body.

use notify_plugin::{Delivery, Event, Failure, misconfigured};

use crate::settings::Settings;

/// Headers that the operator cannot set.
const OWN: [&str; 7] = [
    "content-type",
    "idempotency-key",
    "traceparent",
    "tracestate",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
];
/// Maximum bytes of `tracestate` (W3C Trace Context).
const TRACE_STATE_BYTES_MAX: usize = 512;

/// Returns the headers that identify a repetition and the event's trace.
pub(crate) fn of_delivery(event: &Event, delivery: &Delivery) -> Vec<(String, String)> {
    let mut headers = vec![("idempotency-key".to_owned(), delivery.idempotency_key.clone())];
    let extension = |wanted: &str| event.extensions.iter().find(|(name, _)| name == wanted).map(|(_, value)| &**value);
    // The publisher may have written anything there, and an invalid header would stop the event.
    if let Some(parent) = extension("traceparent").filter(|value| is_trace_parent(value)) {
        headers.push(("traceparent".to_owned(), parent.to_owned()));
        if let Some(state) = extension("tracestate").filter(|value| is_trace_state(value)) {
            headers.push(("tracestate".to_owned(), state.to_owned()));
        }
    }
    headers
}

/// Accepts `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`; later versions may be longer.
fn is_trace_parent(value: &str) -> bool {
    let parts: Vec<_> = value.split('-').collect();
    let is_hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, digits: usize| is_hex(part, digits) && part.bytes().any(|byte| byte != b'0');
    match parts[..] {
        [version, trace, parent, flags, ref rest @ ..] => {
            let is_version = is_hex(version, 2) && version != "ff" && (version != "00" || rest.is_empty());
            let is_plain = value.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
            is_version && is_plain && is_id(trace, 32) && is_id(parent, 16) && is_hex(flags, 2)
        }
        _ => false,
    }
}

fn is_trace_state(value: &str) -> bool {
    !value.is_empty() && value.len() <= TRACE_STATE_BYTES_MAX && value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Checks that the operator's headers repeat none of the plugin's own.
pub(crate) fn check(settings: &Settings) -> Result<(), Failure> {
    for name in settings.headers.keys() {
        let lower = name.to_ascii_lowercase();
        if lower == "content-type" {
            return Err(misconfigured("[config] headers: content-type has a setting of its own, beside the template"));
        }
        if OWN.contains(&&*lower) || lower.starts_with("ce-") {
            return Err(misconfigured(format!("[config] headers: the plugin sets {lower} itself: leave it out")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;
    use crate::tests::{delivery, event};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn check_trace(extensions: &[(&str, &str)], expected: &[(&str, &str)]) {
        let extensions = extensions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let headers = of_delivery(&Event { extensions, ..event() }, &delivery());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(headers[0], ("idempotency-key", "key-1"));
        assert_eq!(&headers[1..], expected);
    }

    #[test]
    fn the_trace_goes_on() {
        check_trace(&[], &[]);
        check_trace(&[("traceparent", PARENT)], &[("traceparent", PARENT)]);
        check_trace(
            &[("tracestate", "a=1,b=2"), ("traceparent", PARENT)],
            &[("traceparent", PARENT), ("tracestate", "a=1,b=2")],
        );
    }

    #[test]
    fn a_later_version_goes_on_as_it_came() {
        for parent in [PARENT.replacen("00", "01", 1), PARENT.replacen("00", "cc", 1) + "-and-more"] {
            check_trace(&[("traceparent", &parent)], &[("traceparent", &parent)]);
        }
    }

    #[test]
    fn what_is_no_trace_is_left_out() {
        check_trace(&[("tracestate", "a=1")], &[]);
        for parent in [
            "",
            "00",
            "00-a-b-01",
            &PARENT.to_uppercase(),
            &format!("{PARENT}\r\nx: y"),
            "------",
            &PARENT.replacen("00", "ff", 1),
            &format!("{PARENT}-more"),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &format!("cc{}-\r\nx: y", &PARENT[2..]),
        ] {
            check_trace(&[("traceparent", parent)], &[]);
        }
        for state in ["", "a=1\r\nx: y", "ä=1", &"x".repeat(513)] {
            check_trace(&[("traceparent", PARENT), ("tracestate", state)], &[("traceparent", PARENT)]);
        }
    }

    #[test]
    fn the_operators_headers_are_not_those_of_the_plugin() {
        let check = |name: &str| super::check(&settings(&format!(r#"{{"url": "", "headers": {{"{name}": "x"}}}}"#)));
        for name in ["Content-Type", "Webhook-Id", "webhook-signature", "ce-id", "Idempotency-Key", "traceparent"] {
            assert!(check(name).is_err(), "{name}");
        }
        for name in ["authorization", "x-team", "User-Agent"] {
            assert!(check(name).is_ok(), "{name}");
        }
    }
}
