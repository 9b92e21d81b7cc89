//! Schedules the next attempt for plugins that the machine could not load, with a backoff. Attempts go on for
//! as long as it takes, whether or not the folder changes. The caller passes in the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// Shortest pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Pending retries by plugin name.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<String, Retry>);

#[derive(Debug)]
struct Retry {
    due: Instant,
    pauses: ExponentialBackoff,
    /// The problem that was reported last.
    said: String,
}

impl Retries {
    /// Records a failed attempt. Returns the time until the next one, and whether the problem differs from the
    /// last one.
    pub(super) fn failed(&mut self, name: &str, problem: &str, now: Instant) -> (Duration, bool) {
        let retry = self.0.entry(name.to_owned()).or_insert_with(|| Retry {
            due: now,
            pauses: ExponentialBuilder::default()
                .with_min_delay(PAUSE_MIN)
                .with_max_delay(PAUSE_MAX)
                .with_jitter()
                .without_max_times()
                .build(),
            said: String::new(),
        });
        // The jitter may double the pause, so cap it again.
        let pause = retry.pauses.next().unwrap_or(PAUSE_MAX).min(PAUSE_MAX);
        retry.due = now + pause;
        let is_news = retry.said != problem;
        problem.clone_into(&mut retry.said);
        (pause, is_news)
    }

    /// Cancels retries, because the plugin has loaded or only new files can help.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn is_due(&self, name: &str, now: Instant) -> bool {
        self.0.get(name).is_some_and(|retry| retry.due <= now)
    }

    /// Returns the time until the next retry is due, or `None` if none is pending.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let due = self.0.values().map(|retry| retry.due).min()?;
        Some(due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_longer_up_to_a_bound_and_is_told_once() {
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        assert_eq!((retries.wait(now), retries.is_due("a", now)), (None, false));
        let (mut last, mut news) = (Duration::ZERO, 0);
        for _ in 0..20 {
            let (pause, is_news) = retries.failed("a", "no memory", now);
            news += usize::from(is_news);
            assert!(pause >= PAUSE_MIN && pause <= PAUSE_MAX && !retries.is_due("a", now));
            now += pause;
            assert!(retries.is_due("a", now) && retries.wait(now) == Some(Duration::ZERO));
            last = pause;
        }
        assert_eq!((last, news), (PAUSE_MAX, 1));
        assert!(retries.failed("a", "no descriptor", now).1, "another problem");
        retries.forget("a");
        assert_eq!((retries.wait(now), retries.is_due("a", now)), (None, false));
        assert!(retries.failed("a", "no memory", now).0 <= 2 * PAUSE_MIN, "it begins anew");
    }
}
