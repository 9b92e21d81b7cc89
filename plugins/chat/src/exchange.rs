//! An exchange is one request to a service and its answer, as plain data, and the verdict on it.
//!
//! Nothing here sends: services make requests and judge answers without the host.

use notify_plugin::snippet;

use crate::address::{Credential, placeholders};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// Tokens in it are placeholders, which the host fills in.
    pub(crate) url: String,
    pub(crate) authorization: Option<(&'static str, Credential)>,
    /// JSON.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Where it goes, as a grant names it.
    pub(crate) fn origin(&self) -> Option<String> {
        let (scheme, rest) = self.url.split_once("://")?;
        let host = rest.split(['/', '?']).next()?;
        Some(format!("{scheme}://{host}"))
    }

    /// The names of the secrets that the host fills in.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut names = placeholders(&self.url);
        if let Some((_, Credential::Secret { name, .. })) = &self.authorization {
            names.push(name.clone());
        }
        names
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Milliseconds, as the header `Retry-After` says.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Vec<u8>,
}

/// What an answer comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// With the id of the message, where the service says it.
    Sent(Option<String>),
    /// It may work later, but not before so many milliseconds have passed.
    Retry { reason: String, after: Option<u64> },
    /// This event will never work there.
    Reject { code: String, reason: String },
    /// No event will, until the operator acts.
    Misconfigured(String),
    /// Telegram has moved the chat: the same once more, to that one.
    Moved(i64),
}

impl Reply {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The beginning of the body, on one line.
    pub(crate) fn told(&self) -> String {
        snippet(&self.body)
    }

    /// What most services mean by their status.
    pub(crate) fn by_status(&self) -> Verdict {
        self.by_status_telling(&self.told())
    }

    pub(crate) fn by_status_telling(&self, told: &str) -> Verdict {
        let reason = if told.is_empty() {
            format!("it answers {}", self.status)
        } else {
            format!("it answers {}: {told}", self.status)
        };
        match self.status {
            200..=299 => Verdict::Sent(None),
            300..=399 => {
                Verdict::Misconfigured(format!("{reason}: redirects are not followed, put the final URL into targets"))
            }
            401 | 403 | 404 | 405 | 410 => Verdict::Misconfigured(reason),
            408 | 425 | 429 | 500..=599 => Verdict::Retry { reason, after: self.retry_after },
            413 => Verdict::Reject { code: "too-large".to_owned(), reason },
            status => Verdict::Reject { code: format!("http-{status}"), reason },
        }
    }
}

/// Seconds, as services write them, in milliseconds; `None` for what is no time to wait.
pub(crate) fn millis(seconds: &serde_json::Value) -> Option<u64> {
    const DAY_SECONDS: f64 = 86_400.0;
    let seconds = seconds.as_f64().filter(|seconds| *seconds > 0.0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a day")]
    Some((seconds.min(DAY_SECONDS) * 1000.0).ceil() as u64)
}

/// A service's word for an error as a code: `[a-z0-9-]`.
pub(crate) fn code(word: &str) -> String {
    let code: String =
        word.chars().take(40).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    if code.is_empty() { "refused".to_owned() } else { code }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn check(status: u16, expected: &str) {
        let reply = Reply { status, retry_after: Some(7), body: b"no \x1b[2J\n luck".to_vec() };
        let verdict = match reply.by_status() {
            Verdict::Sent(_) => "sent".to_owned(),
            Verdict::Retry { after, .. } => format!("retry {after:?}"),
            Verdict::Reject { code, .. } => code,
            Verdict::Misconfigured(reason) => {
                assert!(reason.contains("no [2J luck"), "{reason}");
                "misconfigured".to_owned()
            }
            Verdict::Moved(_) => "moved".to_owned(),
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
