//! The policy decides what becomes of a delivery, given what an attempt came to.

use crate::plugin::contract::types::{Failure, Outcome as Handled};
use crate::plugin::{Answer, PluginFailure};

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Skipped,
    Retry(Fault),
    Reject(Fault),
    Misconfigured(Fault),
}

/// What went wrong, in words and in a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Short and stable, `[a-z0-9-]`.
    pub(crate) code: String,
    pub(crate) reason: String,
}

impl Fault {
    pub(crate) fn new(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { code: code.into(), reason: reason.into() }
    }
}

/// How an outcome is made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// There is nothing to write.
    Done,
    /// It goes to the dead letters.
    DeadLetter(Fault),
}

impl Outcome {
    /// From what a call of the plugin gave.
    pub(crate) fn of(call: Result<Answer, PluginFailure>) -> Self {
        match call {
            Ok(Ok(Handled::Done(_))) => Self::Done,
            Ok(Ok(Handled::Skipped(_))) => Self::Skipped,
            Ok(Err(Failure::Retry(retry))) => Self::Retry(Fault::new("retry", retry.reason)),
            Ok(Err(Failure::Reject(rejection))) => Self::Reject(Fault::new(label(&rejection.code), rejection.reason)),
            Ok(Err(Failure::Misconfigured(reason))) => Self::Misconfigured(Fault::new("misconfigured", reason)),
            Err(failure) => Self::Retry(Fault::new(failure.code(), failure.to_string())),
        }
    }
}

/// Every failure is final: there are no retries yet.
pub(crate) fn decide(outcome: Outcome) -> Settlement {
    match outcome {
        Outcome::Done | Outcome::Skipped => Settlement::Done,
        Outcome::Retry(fault) | Outcome::Reject(fault) | Outcome::Misconfigured(fault) => Settlement::DeadLetter(fault),
    }
}

/// A plugin's own code, made fit to be a label.
fn label(code: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    let fit = |character| if matches!(character, 'a'..='z' | '0'..='9') { character } else { '-' };
    let label: String = code.to_lowercase().chars().map(fit).take(CHARACTERS_MAX).collect();
    if label.is_empty() { "rejected".to_owned() } else { label }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::contract::types::{Rejection, Retry};

    #[test]
    fn a_failed_delivery_is_dead_lettered_with_its_reason() {
        let rejection = Rejection { code: "No Such User!".to_owned(), reason: "unknown".to_owned() };
        let retry = Retry { reason: "busy".to_owned(), after: None };
        for (call, settlement) in [
            (Ok(Ok(Handled::Done(None))), Settlement::Done),
            (Ok(Ok(Handled::Skipped("not mine".to_owned()))), Settlement::Done),
            (Ok(Err(Failure::Retry(retry))), Settlement::DeadLetter(Fault::new("retry", "busy"))),
            (Ok(Err(Failure::Reject(rejection))), Settlement::DeadLetter(Fault::new("no-such-user-", "unknown"))),
            (
                Err(PluginFailure::OutOfMemory(64)),
                Settlement::DeadLetter(Fault::new("out-of-memory", "it ran out of memory: its limit is 64 MiB")),
            ),
        ] {
            assert_eq!(decide(Outcome::of(call)), settlement);
        }
    }
}
