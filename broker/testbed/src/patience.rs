//! Waits for a condition, with a time limit. The only place in the tests that sleeps.

use std::thread::sleep;
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
///
/// # Panics
///
/// If it does not hold within `deadline`; the message contains `what`.
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(deadline, what, || condition().then_some(()));
}

/// Waits until there is a value, and returns it.
///
/// # Panics
///
/// If there is none within `deadline`; the message contains `what`.
pub fn eventually_some<T>(deadline: Duration, what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_time_is_returned() {
        let mut polls = 0;
        let value = eventually_some(Duration::from_secs(5), "the third poll", || {
            polls += 1;
            (polls == 3).then_some(polls)
        });
        assert_eq!(value, 3);
    }

    #[test]
    #[should_panic(expected = "the moon")]
    fn what_does_not_come_is_named() {
        eventually(Duration::from_millis(20), "the moon", || false);
    }
}
