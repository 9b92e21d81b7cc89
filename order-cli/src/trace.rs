//! The trace of messages, as a W3C `traceparent`, which notify-host passes on
//! (<https://www.w3.org/TR/trace-context/#traceparent-header>).

use std::str::FromStr;

use broker::{Message, Value};
use uuid::Uuid;

/// Name of the header, also in the printed output.
pub(crate) const HEADER: &str = "traceparent";

/// Trace of the published messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    /// All messages belong to this trace.
    Given(String),
    /// Each message begins a trace of its own.
    New,
}

impl Trace {
    /// Adds the trace header to a message.
    pub(crate) fn mark(&self, mut message: Message) -> Message {
        let parent = match self {
            Self::Given(parent) => parent.clone(),
            Self::New => new_parent(),
        };
        message.properties.headers.insert(HEADER.to_owned(), Value::from(parent));
        message
    }
}

impl FromStr for Trace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "new" => Ok(Self::New),
            parent if is_parent(parent) => Ok(Self::Given(parent.to_owned())),
            _ => Err("expected new, or a traceparent such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .to_owned()),
        }
    }
}

/// Generates a parent with the sampled flag, because a requested trace should be recorded.
fn new_parent() -> String {
    let span = Uuid::new_v4().simple().to_string();
    format!("00-{}-{}-01", Uuid::new_v4().simple(), &span[..16])
}

/// Returns whether the text is a lower-case traceparent of version 00 without an all-zero id.
fn is_parent(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let is_hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, digits: usize| is_hex(part, digits) && part.bytes().any(|byte| byte != b'0');
    matches!(parts[..], ["00", trace, span, flags] if is_id(trace, 32) && is_id(span, 16) && is_hex(flags, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn marked(trace: &Trace) -> String {
        trace.mark(Message::json("{}")).properties.headers[HEADER].to_text().unwrap()
    }

    #[test]
    fn a_trace_is_the_one_that_is_given_or_a_new_one_for_each_message() {
        assert_eq!(marked(&PARENT.parse().unwrap()), PARENT);
        let new: Trace = "new".parse().unwrap();
        let (one, other) = (marked(&new), marked(&new));
        assert!(is_parent(&one) && is_parent(&other) && one[..36] != other[..36], "{one} {other}");
    }

    #[test]
    fn what_is_no_parent_is_refused() {
        for text in [
            "",
            "NEW",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        ] {
            assert!(text.parse::<Trace>().is_err(), "{text:?}");
        }
    }
}
