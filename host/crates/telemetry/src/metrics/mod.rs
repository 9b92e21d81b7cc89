//! Metrics: the numbers that a host keeps about its work since it started. Each worker counts in its own counters,
//! allocated once; exporters read them. This module does not know how they are shown.

mod times;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

pub use crate::metrics::times::{BOUNDS, Tally, Times};

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn one_more(&self) {
        self.add(1);
    }

    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All metrics of one host. Clones share the same counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub host: Arc<HostMetrics>,
    /// Metrics of plugins; those of a removed plugin go with it.
    plugins: Arc<Mutex<BTreeMap<String, Weak<PluginMetrics>>>>,
}

/// Metrics that do not belong to one plugin.
#[derive(Debug, Default)]
pub struct HostMetrics {
    /// Events that at least one plugin wanted.
    pub routed: Count,
    pub unmatched: Count,
    pub duplicate: Count,
    /// Messages that are not events and were dead-lettered.
    pub undecodable: Count,
    /// Messages that broke the session and were dead-lettered.
    pub quarantined: Count,
    /// Time from receiving a source message until acknowledging it.
    pub settled: Times,
    /// Attempts that succeeded, over all plugins that ever ran. `failed` counts the others.
    pub succeeded: Count,
    pub failed: Count,
    pub dead: Count,
    /// Spans that were meant for a collector and did not reach it.
    pub spans_dropped: Count,
}

/// Metrics of one plugin, across its versions.
#[derive(Debug, Default)]
pub struct PluginMetrics {
    attempts: [Count; Ended::ALL.len()],
    pub attempt_times: Times,
    spills: [Count; SpillReason::ALL.len()],
    dead_letters: [Count; GivenUp::ALL.len()],
    requests: [Count; Requested::ALL.len()],
    /// When the message taken last from the plugin's queue was enqueued, in milliseconds since 1970, if known.
    queued_at: AtomicI64,
    host: Arc<HostMetrics>,
}

/// Defines a closed set of labels, each with its own index.
macro_rules! words {
    ($(#[$attribute:meta])* $name:ident { $($(#[$of_word:meta])* $word:ident = $text:literal),+ $(,)? }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of_word])* $word),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$word),+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$word => $text),+ }
            }
        }
    };
}

words! {
    /// The outcome of an attempt.
    Ended { Done = "done", Skipped = "skipped", Retry = "retry", Reject = "reject", Misconfigured = "misconfigured" }
}
words! {
    /// Why a delivery spilled to its plugin's own queue without an attempt that counts. The journal stores these
    /// words on disk.
    SpillReason {
        /// No slot became free soon enough.
        Busy = "busy",
        /// Too many calls failed, and the plugin is left alone for a while.
        Failing = "failing",
        /// The plugin reports that it is misconfigured.
        Misconfigured = "misconfigured",
        /// The operator paused it.
        Paused = "paused",
        QuietHours = "quiet-hours",
        RateLimited = "rate-limited",
        /// The machine could not load it yet, so nobody knows whether it wants the event.
        NotLoaded = "not-loaded",
        /// Its log lines are its work, and the log accepts none.
        LogBlocked = "log-blocked",
    }
}
words! {
    /// Why a log line was not written.
    LogLoss {
        /// The queue had no room.
        QueueFull = "queue-full",
        /// The write failed. The attempt that required the line is retried.
        WriteFailed = "write-failed",
        TooLate = "too-late",
    }
}
words! {
    /// Why a delivery was given up.
    GivenUp {
        Undecodable = "undecodable", Rejected = "rejected", AttemptsUsedUp = "attempts-used-up", TooOld = "too-old",
        /// It broke the session.
        Quarantined = "quarantined",
        /// The broker cannot forward it.
        Inexpressible = "inexpressible",
    }
}
words! {
    /// The result of a request that a plugin wanted to send.
    Requested {
        Informational = "1xx", Success = "2xx", Redirection = "3xx", ClientError = "4xx", ServerError = "5xx",
        Denied = "denied", Invalid = "invalid", Quota = "quota", TimedOut = "timeout", Unavailable = "unavailable",
    }
}

impl Metrics {
    /// Returns the metrics of the plugin with this name. They live for as long as anybody holds them.
    pub fn of_plugin(&self, name: &str) -> Arc<PluginMetrics> {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.retain(|_, metrics| metrics.strong_count() > 0);
        if let Some(metrics) = plugins.get(name).and_then(Weak::upgrade) {
            return metrics;
        }
        let metrics = Arc::new(PluginMetrics { host: Arc::clone(&self.host), ..PluginMetrics::default() });
        plugins.insert(name.to_owned(), Arc::downgrade(&metrics));
        metrics
    }
}

impl PluginMetrics {
    pub fn attempted(&self, ended: Ended, took: Duration) {
        self.attempts[ended as usize].one_more();
        self.attempt_times.took(took);
        match ended {
            Ended::Done | Ended::Skipped => self.host.succeeded.one_more(),
            Ended::Retry | Ended::Reject | Ended::Misconfigured => self.host.failed.one_more(),
        }
    }

    pub fn spilled(&self, why: SpillReason) {
        self.spills[why as usize].one_more();
    }

    pub fn gave_up(&self, why: GivenUp) {
        self.dead_letters[why as usize].one_more();
        self.host.dead.one_more();
    }

    pub fn requested(&self, result: Requested) {
        self.requests[result as usize].one_more();
    }

    /// Records that a message was taken from the plugin's queue. `queued_at` is when it was enqueued, in milliseconds
    /// since 1970.
    pub fn taken(&self, queued_at: i64) {
        self.queued_at.store(queued_at, Ordering::Relaxed);
    }

    pub fn queued_at(&self) -> i64 {
        self.queued_at.load(Ordering::Relaxed)
    }

    pub fn attempts(&self, ended: Ended) -> u64 {
        self.attempts[ended as usize].get()
    }

    pub fn spills(&self, why: SpillReason) -> u64 {
        self.spills[why as usize].get()
    }

    pub fn dead_letters(&self, why: GivenUp) -> u64 {
        self.dead_letters[why as usize].get()
    }

    pub fn requests(&self, result: Requested) -> u64 {
        self.requests[result as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_numbers_live_as_long_as_one_of_its_versions() {
        let metrics = Metrics::default();
        let first = metrics.of_plugin("a");
        first.attempted(Ended::Skipped, Duration::from_millis(1));
        first.gave_up(GivenUp::TooOld);
        let second = metrics.of_plugin("a");
        drop(first);
        assert_eq!(second.attempts(Ended::Skipped), 1);
        assert_eq!((metrics.host.succeeded.get(), metrics.host.failed.get(), metrics.host.dead.get()), (1, 0, 1));
        drop(second);
        assert_eq!(metrics.of_plugin("a").attempts(Ended::Skipped), 0);
        assert_eq!(metrics.host.succeeded.get(), 1, "the host's own go on");
        assert_eq!(Ended::ALL.iter().position(|ended| *ended == Ended::Reject), Some(Ended::Reject as usize));
    }
}
