//! A request to a service, its reply, and the outcome of sending, as plain data.
//!
//! Nothing here sends: services build requests and interpret replies without the host.

use notify_plugin::snippet;

use crate::address::{Credential, placeholders};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// URL with placeholders for tokens, which the host fills in.
    pub(crate) url: String,
    pub(crate) authorization: Option<(&'static str, Credential)>,
    /// JSON.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Returns the origin, as a grant names it.
    pub(crate) fn origin(&self) -> Option<String> {
        let (scheme, rest) = self.url.split_once("://")?;
        let host = rest.split(['/', '?']).next()?;
        Some(format!("{scheme}://{host}"))
    }

    /// Returns the names of the secrets that the host fills in.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut names = placeholders(&self.url);
        if let Some((_, Credential::Secret { name, .. })) = &self.authorization {
            names.push(name.clone());
        }
        names
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceReply {
    pub(crate) status: u16,
    /// Delay from `Retry-After`, in milliseconds.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Vec<u8>,
}

/// Outcome of sending a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SendOutcome {
    /// Sent, with the id of the message if the service returns one.
    Sent(Option<String>),
    /// It may work later, but not before `after` milliseconds have passed.
    Retry { reason: String, after: Option<u64> },
    /// This event will never work there.
    Reject { code: String, reason: String },
    /// No event will work until the operator acts.
    Misconfigured(String),
    /// Telegram has moved the chat to this id; send the message there.
    Moved(i64),
}

impl ServiceReply {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Returns the beginning of the body, on one line.
    pub(crate) fn told(&self) -> String {
        snippet(&self.body)
    }

    /// Interprets the status as most services use it.
    pub(crate) fn by_status(&self) -> SendOutcome {
        self.by_status_telling(&self.told())
    }

    pub(crate) fn by_status_telling(&self, told: &str) -> SendOutcome {
        let reason = if told.is_empty() {
            format!("it answers {}", self.status)
        } else {
            format!("it answers {}: {told}", self.status)
        };
        match self.status {
            200..=299 => SendOutcome::Sent(None),
            300..=399 => SendOutcome::Misconfigured(format!(
                "{reason}: redirects are not followed, put the final URL into targets"
            )),
            401 | 403 | 404 | 405 | 410 => SendOutcome::Misconfigured(reason),
            408 | 425 | 429 | 500..=599 => SendOutcome::Retry { reason, after: self.retry_after },
            413 => SendOutcome::Reject { code: "too-large".to_owned(), reason },
            status => SendOutcome::Reject { code: format!("http-{status}"), reason },
        }
    }
}

/// Converts seconds, as services write them, to milliseconds. Returns `None` if the value is not a delay.
pub(crate) fn millis(seconds: &serde_json::Value) -> Option<u64> {
    const DAY_SECONDS: f64 = 86_400.0;
    let seconds = seconds.as_f64().filter(|seconds| *seconds > 0.0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a day")]
    Some((seconds.min(DAY_SECONDS) * 1000.0).ceil() as u64)
}

/// Turns a service's name of an error into a code: `[a-z0-9-]`.
pub(crate) fn code(word: &str) -> String {
    let code: String =
        word.chars().take(40).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    if code.is_empty() { "refused".to_owned() } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn check(status: u16, expected: &str) {
        let reply = ServiceReply { status, retry_after: Some(7), body: b"no \x1b[2J\n luck".to_vec() };
        let verdict = match reply.by_status() {
            SendOutcome::Sent(_) => "sent".to_owned(),
            SendOutcome::Retry { after, .. } => format!("retry {after:?}"),
            SendOutcome::Reject { code, .. } => code,
            SendOutcome::Misconfigured(reason) => {
                assert!(reason.contains("no [2J luck"), "{reason}");
                "misconfigured".to_owned()
            }
            SendOutcome::Moved(_) => "moved".to_owned(),
        };
        assert_eq!(verdict, expected, "{status}");
    }

    #[test]
    fn a_status_says_whether_it_may_work_later() {
        for (status, expected) in [
            (200, "sent"),
            (204, "sent"),
            (302, "misconfigured"),
            (400, "http-400"),
            (401, "misconfigured"),
            (404, "misconfigured"),
            (410, "misconfigured"),
            (413, "too-large"),
            (429, "retry Some(7)"),
            (500, "retry Some(7)"),
            (503, "retry Some(7)"),
        ] {
            check(status, expected);
        }
    }

    #[test]
    fn a_wait_is_rounded_up_and_bounded() {
        for (seconds, expected) in [
            (serde_json::json!(0.65), Some(650)),
            (serde_json::json!(5), Some(5000)),
            (serde_json::json!(1e30), Some(86_400_000)),
            (serde_json::json!(0), None),
            (serde_json::json!(-1), None),
            (serde_json::json!("5"), None),
        ] {
            assert_eq!(millis(&seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn a_code_is_a_label() {
        assert_eq!(code("invalid_payload"), "invalid-payload");
        assert_eq!(code(""), "refused");
        assert!(code(&"é".repeat(100)).len() <= 40);
    }
}
