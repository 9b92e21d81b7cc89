//! Meters are the numbers that a host keeps of its work since it started. Who works counts, in places of its own that are
//! made once; who wants to know reads. Nothing here knows how they are shown.

mod times;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

pub use crate::metrics::times::{BOUNDS, Tally, Times};

/// A number that only grows.
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

/// All of one host. Its copies are the same meters.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub host: Arc<HostMetrics>,
    /// Those of plugins that are no more go with them.
    plugins: Arc<Mutex<BTreeMap<String, Weak<PluginMetrics>>>>,
}

/// What is counted whatever the plugin.
#[derive(Debug, Default)]
pub struct HostMetrics {
    /// Events that some plugin wanted.
    pub routed: Count,
    pub unmatched: Count,
    pub duplicate: Count,
    /// Messages that are no event, and lie with the dead letters.
    pub undecodable: Count,
    /// Messages that broke the session, and lie with the dead letters.
    pub quarantined: Count,
    /// From when a message of the source came until it was acknowledged.
    pub settled: Times,
    /// Attempts that did their work, and that failed, of all plugins that there were.
    pub succeeded: Count,
    pub failed: Count,
    pub dead: Count,
    /// Spans that were to go to a collector and did not reach it.
    pub spans_dropped: Count,
}

/// What is counted of one plugin, whatever its version.
#[derive(Debug, Default)]
pub struct PluginMetrics {
    attempts: [Count; Ended::ALL.len()],
    pub attempt_times: Times,
    spills: [Count; SpillReason::ALL.len()],
    dead_letters: [Count; GivenUp::ALL.len()],
    requests: [Count; Requested::ALL.len()],
    /// When what was taken last from its queue had come there, in milliseconds since 1970, as far as that is known.
    queued_at: AtomicI64,
    host: Arc<HostMetrics>,
}

/// A closed set of words, each with a number of its own.
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
    /// What an attempt came to.
    Ended { Done = "done", Skipped = "skipped", Retry = "retry", Reject = "reject", Misconfigured = "misconfigured" }
}
words! {
    /// Why a delivery went to its plugin's own queue, untried or as if it were. The journal keeps these words on disk.
    SpillReason {
        /// No slot was free soon enough.
        Busy = "busy",
        /// Too many calls of it failed, and it is left alone for a while.
        Failing = "failing",
        /// It says so itself.
        Misconfigured = "misconfigured",
        /// The operator holds it.
        Paused = "paused",
        QuietHours = "quiet-hours",
        RateLimited = "rate-limited",
        /// The machine could not load it yet, and nobody knows whether it wants the event.
        NotLoaded = "not-loaded",
        /// Its log lines are its work, and the log takes none.
        LogBlocked = "log-blocked",
    }
}
words! {
    /// Why a log line was not written.
    LogLoss {
        /// There was no room for it.
        QueueFull = "queue-full",
        /// The attempt whose work it was is made again.
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
        /// The broker cannot carry it on.
        Inexpressible = "inexpressible",
    }
}
words! {
    /// What came of a request that a plugin wanted to send.
    Requested {
        Informational = "1xx", Success = "2xx", Redirection = "3xx", ClientError = "4xx", ServerError = "5xx",
        Denied = "denied", Invalid = "invalid", Quota = "quota", TimedOut = "timeout", Unavailable = "unavailable",
    }
}

impl Metrics {
    /// Those of the plugin of this name, for as long as somebody has them.
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

    /// Something was taken from its queue that had come there then, in milliseconds since 1970.
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
