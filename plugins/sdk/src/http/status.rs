//! The meaning of an HTTP status for an event.

use std::time::Duration;

use serde::Deserialize;

use crate::{Failure, Handled, done_with, misconfigured, reject, retry, retry_after};

/// Meaning of a status for the event that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Meaning {
    /// The event has arrived.
    Done,
    /// It may work later.
    Retry,
    /// This event will never work here.
    Reject,
    /// No event can work until the operator acts.
    Misconfigured,
}

impl Meaning {
    /// Returns the usual meaning of a status.
    ///
    /// | status | means |
    /// |---|---|
    /// | 2xx | done |
    /// | 3xx | misconfigured: the host follows no redirect, and every event would get one |
    /// | 408, 425, 429, 5xx | retry |
    /// | 410 | misconfigured: the target is gone |
    /// | all others | reject |
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Done,
            408 | 425 | 429 | 500..=599 => Self::Retry,
            300..=399 | 410 => Self::Misconfigured,
            _ => Self::Reject,
        }
    }

    /// Returns the outcome for a status with this meaning.
    ///
    /// `said` is the server's message. A rejection's code is like `http-404`.
    pub fn outcome(self, status: u16, said: &str, after: Option<Duration>) -> Handled {
        let sentence = if said.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {said}") };
        match self {
            Self::Done => done_with(format!("HTTP {status}")),
            Self::Retry => Err(wait(sentence, after)),
            Self::Reject => Err(reject(format!("http-{status}"), sentence)),
            Self::Misconfigured => Err(misconfigured(sentence)),
        }
    }
}

fn wait(reason: String, after: Option<Duration>) -> Failure {
    match after {
        Some(after) => retry_after(reason, u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        None => retry(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_status_means() {
        for (statuses, meaning) in [
            (&[200, 201, 202, 204, 299][..], Meaning::Done),
            (&[300, 301, 302, 303, 304, 307, 308, 410], Meaning::Misconfigured),
            (&[408, 425, 429, 500, 502, 503, 504, 599], Meaning::Retry),
            (&[400, 401, 403, 404, 405, 409, 411, 413, 422, 451, 499], Meaning::Reject),
            (&[0, 99, 100, 101, 199, 600, 999, u16::MAX], Meaning::Reject),
        ] {
            for status in statuses {
                assert_eq!(Meaning::of_status(*status), meaning, "{status}");
            }
        }
    }
}
