//! The policy decides what becomes of a delivery, given what an attempt came to. It has no clock,
//! no dice and no socket.

use std::time::Duration;

use config::RetryPolicy;
use contract::types::{Failure, Outcome as Handled};
use sandbox::{Answer, PluginFailure};
use telemetry::metrics::{self, GivenUp};

/// Each wait is so many times as long as the one before: 1 s, 4 s, 16 s, … up to an hour.
const BACKOFF_FACTOR: u32 = 4;

/// Until a delivery is tried again that the machine's fault kept from being done, by chance half of it to all of it.
const MACHINE_PAUSE: Duration = Duration::from_secs(5);

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With what the plugin notes of it.
    Done(Option<String>),
    /// With the reason.
    Skipped(String),
    Retry {
        fault: Fault,
        /// Not before this.
        after: Option<Duration>,
    },
    Reject(Fault),
    Misconfigured(Fault),
    /// The machine failed, and not the plugin: it counts as no attempt.
    MachineFault(Fault),
}

impl Outcome {
    /// In a word.
    pub fn ended(&self) -> metrics::Ended {
        match self {
            Self::Done(_) => metrics::Ended::Done,
            Self::Skipped(_) => metrics::Ended::Skipped,
            Self::Retry { .. } | Self::MachineFault(_) => metrics::Ended::Retry,
            Self::Reject(_) => metrics::Ended::Reject,
            Self::Misconfigured(_) => metrics::Ended::Misconfigured,
        }
    }

    /// What went wrong, if anything.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Done(_) | Self::Skipped(_) => None,
            Self::Retry { fault, .. }
            | Self::Reject(fault)
            | Self::Misconfigured(fault)
            | Self::MachineFault(fault) => Some(fault),
        }
    }

    /// Why the plugin did not do its work.
    pub fn failure(&self) -> Option<String> {
        self.fault().map(|fault| fault.reason.clone())
    }
}

/// What went wrong, in words and in a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Short and stable, `[a-z0-9-]`.
    pub code: String,
    pub reason: String,
}

impl Fault {
    pub fn new(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { code: code.into(), reason: reason.into() }
    }
}

/// How an outcome is made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// There is nothing to write.
    Done,
    /// It goes to the plugin's own queue, by way of a wait.
    RetryLater { fault: Fault, delay: Duration },
    /// The same, as if it had not been tried this time.
    AgainLater { fault: Fault, delay: Duration },
    /// It goes to the dead letters.
    DeadLetter { fault: Fault, why: GivenUp },
    /// It goes to the plugin's own queue, as if it had never been tried, and the plugin is paused.
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

    /// Whether the attempt counts as one.
    pub(crate) fn counts(&self) -> bool {
        match self {
            Self::Done | Self::RetryLater { .. } | Self::DeadLetter { .. } => true,
            Self::AgainLater { .. } | Self::Pause(_) => false,
        }
    }

    /// Why the delivery is given up, if it is.
    pub(crate) fn given_up(&self) -> Option<GivenUp> {
        match self {
            Self::DeadLetter { why, .. } => Some(*why),
            Self::Done | Self::RetryLater { .. } | Self::AgainLater { .. } | Self::Pause(_) => None,
        }
    }
}

impl Outcome {
    /// From what a call of the plugin gave.
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

/// `attempts` were made in this round, the one that came to `outcome` among them; the round is
/// `age` old. `chance` is from 0 to 1, and spreads the waits.
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

/// How long to wait after so many attempts: exponential, half as long to one and a half times as
/// long by chance, so that what failed together does not come back together.
fn backoff(attempts: u32, policy: &RetryPolicy, chance: f64) -> Duration {
    let steps = attempts.saturating_sub(1);
    let factor = BACKOFF_FACTOR.checked_pow(steps).unwrap_or(u32::MAX);
    let pause = policy.pause_min.saturating_mul(factor).min(policy.pause_max);
    pause.mul_f64(0.5 + chance.clamp(0.0, 1.0)).clamp(policy.pause_min, policy.pause_max)
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
