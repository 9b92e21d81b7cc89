//! The policy decides what becomes of a delivery after an attempt. Pure logic: it has no clock, no randomness
//! and no I/O.

use std::time::Duration;

use config::RetryPolicy;
use contract::types::{Failure, Outcome as Handled};
use sandbox::{Answer, PluginFailure};
use telemetry::metrics::{self, GivenUp};

/// Growth of the pause from one attempt to the next: 1 s, 4 s, 16 s, … up to an hour.
const BACKOFF_FACTOR: u32 = 4;

/// Longest pause after a fault of the machine. Chance picks between half of it and all of it.
const MACHINE_PAUSE: Duration = Duration::from_secs(5);

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, with the plugin's note.
    Done(Option<String>),
    /// Skipped, with the reason.
    Skipped(String),
    Retry {
        fault: Fault,
        /// Minimum delay that the plugin asks for.
        after: Option<Duration>,
    },
    Reject(Fault),
    Misconfigured(Fault),
    /// The machine failed, not the plugin. This does not count as an attempt.
    MachineFault(Fault),
}

impl Outcome {
    /// Returns the outcome as a metrics label.
    pub fn ended(&self) -> metrics::Ended {
        match self {
            Self::Done(_) => metrics::Ended::Done,
            Self::Skipped(_) => metrics::Ended::Skipped,
            Self::Retry { .. } | Self::MachineFault(_) => metrics::Ended::Retry,
            Self::Reject(_) => metrics::Ended::Reject,
            Self::Misconfigured(_) => metrics::Ended::Misconfigured,
        }
    }

    /// Returns the fault, if anything went wrong.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Done(_) | Self::Skipped(_) => None,
            Self::Retry { fault, .. }
            | Self::Reject(fault)
            | Self::Misconfigured(fault)
            | Self::MachineFault(fault) => Some(fault),
        }
    }

    /// Returns why the plugin did not do its work.
    pub fn failure(&self) -> Option<String> {
        self.fault().map(|fault| fault.reason.clone())
    }
}

/// A fault, as a stable code and in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Short and stable, of `[a-z0-9-]`.
    pub code: String,
    pub reason: String,
}

impl Fault {
    pub fn new(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { code: code.into(), reason: reason.into() }
    }
}

/// How to make an outcome durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// Nothing to write.
    Done,
    /// The delivery goes to the plugin's own queue after a delay.
    RetryLater { fault: Fault, delay: Duration },
    /// The same, but this attempt does not count.
    AgainLater { fault: Fault, delay: Duration },
    /// The delivery goes to the dead letters.
    DeadLetter { fault: Fault, why: GivenUp },
    /// The delivery goes to the plugin's own queue as if it had never been tried, and the plugin is paused.
    Pause(Fault),
}

impl Settlement {
    pub(crate) fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Done => None,
            Self::RetryLater { fault, .. }
            | Self::AgainLater { fault, .. }
            | Self::DeadLetter { fault, .. }
            | Self::Pause(fault) => Some(fault),
        }
    }

    /// Returns whether the attempt counts.
    pub(crate) fn counts(&self) -> bool {
        match self {
            Self::Done | Self::RetryLater { .. } | Self::DeadLetter { .. } => true,
            Self::AgainLater { .. } | Self::Pause(_) => false,
        }
    }

    /// Returns why the delivery is given up, if it is.
    pub(crate) fn given_up(&self) -> Option<GivenUp> {
        match self {
            Self::DeadLetter { why, .. } => Some(*why),
            Self::Done | Self::RetryLater { .. } | Self::AgainLater { .. } | Self::Pause(_) => None,
        }
    }
}

impl Outcome {
    /// Derives the outcome from the result of a call.
    pub fn of(call: Result<Answer, PluginFailure>) -> Self {
        match call {
            Ok(Ok(Handled::Done(note))) => Self::Done(note),
            Ok(Ok(Handled::Skipped(reason))) => Self::Skipped(reason),
            Ok(Err(Failure::Retry(retry))) => {
                Self::Retry { fault: Fault::new("retry", retry.reason), after: retry.after.map(Duration::from_millis) }
            }
            Ok(Err(Failure::Reject(rejection))) => Self::Reject(Fault::new(label(&rejection.code), rejection.reason)),
            Ok(Err(Failure::Misconfigured(reason))) => Self::Misconfigured(Fault::new("misconfigured", reason)),
            Err(failure @ PluginFailure::LogNotWritten(_)) => {
                Self::MachineFault(Fault::new(failure.code(), failure.to_string()))
            }
            Err(failure) => Self::Retry { fault: Fault::new(failure.code(), failure.to_string()), after: None },
        }
    }
}

/// Decides how to settle an outcome. `attempts` counts the attempts of this round, including this one. `age` is
/// the age of the round. `chance` is from 0 to 1 and spreads the pauses.
pub(crate) fn decide(outcome: Outcome, attempts: u32, age: Duration, policy: &RetryPolicy, chance: f64) -> Settlement {
    match outcome {
        Outcome::Done(_) | Outcome::Skipped(_) => Settlement::Done,
        Outcome::Reject(fault) => Settlement::DeadLetter { fault, why: GivenUp::Rejected },
        Outcome::Misconfigured(fault) => Settlement::Pause(fault),
        Outcome::MachineFault(fault) => {
            Settlement::AgainLater { fault, delay: MACHINE_PAUSE.mul_f64(f64::midpoint(1.0, chance)) }
        }
        Outcome::Retry { fault, .. } if attempts >= policy.attempts_max => {
            Settlement::DeadLetter { fault, why: GivenUp::AttemptsUsedUp }
        }
        Outcome::Retry { fault, after } => {
            let delay = backoff(attempts, policy, chance).max(after.unwrap_or_default()).min(policy.pause_max);
            if age.saturating_add(delay) > policy.age_max {
                return Settlement::DeadLetter { fault, why: GivenUp::TooOld };
            }
            Settlement::RetryLater { fault, delay }
        }
    }
}

/// Returns the pause after so many attempts. It grows exponentially, times a random 0.5 to 1.5, so that
/// deliveries that failed together do not return together.
fn backoff(attempts: u32, policy: &RetryPolicy, chance: f64) -> Duration {
    let steps = attempts.saturating_sub(1);
    let factor = BACKOFF_FACTOR.checked_pow(steps).unwrap_or(u32::MAX);
    let pause = policy.pause_min.saturating_mul(factor).min(policy.pause_max);
    pause.mul_f64(0.5 + chance.clamp(0.0, 1.0)).clamp(policy.pause_min, policy.pause_max)
}

/// Converts a plugin's own code to a valid label.
fn label(code: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    let fit = |character| if matches!(character, 'a'..='z' | '0'..='9') { character } else { '-' };
    let label: String = code.to_lowercase().chars().map(fit).take(CHARACTERS_MAX).collect();
    if label.is_empty() { "rejected".to_owned() } else { label }
}

#[cfg(test)]
mod tests {
    use contract::types::{Rejection, Retry};
    use proptest::prelude::*;
    use telemetry::log_writer::LogFault;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn retry(after: Option<u64>) -> Outcome {
        Outcome::of(Ok(Err(Failure::Retry(Retry { reason: "busy".to_owned(), after }))))
    }

    fn busy() -> Fault {
        Fault::new("retry", "busy")
    }

    #[test]
    fn what_an_answer_leads_to() {
        let rejection = Rejection { code: "No Such User!".to_owned(), reason: "unknown".to_owned() };
        let rejected = Fault::new("no-such-user-", "unknown");
        let out_of_memory = Fault::new("out-of-memory", "it ran out of memory: its limit is 64 MiB");
        let later = |fault| Settlement::RetryLater { fault, delay: Duration::from_secs(1) };
        for (call, settlement) in [
            (Ok(Ok(Handled::Done(None))), Settlement::Done),
            (Ok(Ok(Handled::Skipped("not mine".to_owned()))), Settlement::Done),
            (Ok(Err(Failure::Retry(Retry { reason: "busy".to_owned(), after: None }))), later(busy())),
            (Ok(Err(Failure::Reject(rejection))), Settlement::DeadLetter { fault: rejected, why: GivenUp::Rejected }),
            (
                Ok(Err(Failure::Misconfigured("no key".to_owned()))),
                Settlement::Pause(Fault::new("misconfigured", "no key")),
            ),
            (Err(PluginFailure::OutOfMemory(64)), later(out_of_memory)),
        ] {
            assert_eq!(decide(Outcome::of(call), 1, NOW, &RetryPolicy::default(), 0.5), settlement);
        }
    }

    #[test]
    fn the_default_waits_grow_from_a_second_to_an_hour() {
        let policy = RetryPolicy::default();
        let waits: Vec<_> = (1..=9).map(|attempts| backoff(attempts, &policy, 0.5).as_secs()).collect();
        assert_eq!(waits, [1, 4, 16, 64, 256, 1024, 3600, 3600, 3600]);
    }

    #[test]
    fn attempts_and_age_have_an_end() {
        let policy = RetryPolicy::default();
        let given_up = |why| Settlement::DeadLetter { fault: busy(), why };
        assert_eq!(decide(retry(None), 8, NOW, &policy, 0.5), given_up(GivenUp::AttemptsUsedUp));
        assert_eq!(decide(retry(None), 1, policy.age_max, &policy, 0.5), given_up(GivenUp::TooOld));
    }

    #[test]
    fn what_the_machine_fails_at_uses_up_no_attempt_and_no_age() {
        let policy = RetryPolicy::default();
        let fault = Fault::new("log-not-written", "its log lines were not written: standard error: No space left");
        for (chance, millis) in [(0.0, 2500), (1.0, 5000)] {
            let failure = PluginFailure::LogNotWritten(LogFault::WriteFailed("No space left".into()));
            let outcome = Outcome::of(Err(failure));
            assert_eq!(outcome.ended(), metrics::Ended::Retry);
            let settlement = decide(outcome, policy.attempts_max, policy.age_max, &policy, chance);
            let delay = Duration::from_millis(millis);
            assert_eq!(settlement, Settlement::AgainLater { fault: fault.clone(), delay });
        }
    }

    proptest! {
        #[test]
        fn a_wait_keeps_its_bounds(
            attempts in 0..u32::MAX,
            after in proptest::option::of(any::<u64>()),
            age in 0_u64..200_000,
            chance in any::<f64>(),
            attempts_max in 1_u32..2000,
            pause_min in 1_u64..3600,
            pause_more in 0_u64..3600,
        ) {
            let policy = RetryPolicy {
                attempts_max,
                pause_min: Duration::from_secs(pause_min),
                pause_max: Duration::from_secs(pause_min + pause_more),
                ..RetryPolicy::default()
            };
            let (age, chance) = (Duration::from_secs(age), if chance.is_nan() { 0.0 } else { chance });
            match decide(retry(after), attempts, age, &policy, chance) {
                Settlement::RetryLater { delay, .. } => {
                    prop_assert!(attempts < attempts_max);
                    prop_assert!(delay >= policy.pause_min && delay <= policy.pause_max);
                    prop_assert!(age + delay <= policy.age_max);
                    let wanted = Duration::from_millis(after.unwrap_or(0));
                    prop_assert!(delay >= wanted.min(policy.pause_max), "earlier than the plugin asked for");
                }
                Settlement::DeadLetter { why: GivenUp::AttemptsUsedUp, .. } => prop_assert!(attempts >= attempts_max),
                Settlement::DeadLetter { why: GivenUp::TooOld, .. } => {
                    prop_assert!(age + policy.pause_max > policy.age_max);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn a_later_attempt_never_waits_less(attempts in 1_u32..100, chance in 0.0..1.0) {
            let policy = RetryPolicy::default();
            prop_assert!(backoff(attempts + 1, &policy, chance) >= backoff(attempts, &policy, chance));
        }
    }
}
