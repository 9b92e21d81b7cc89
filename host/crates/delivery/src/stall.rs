//! Detects stalls: work that does not go on although nothing has failed. There are two kinds.
//!
//! - Starved: messages wait in the queue and none arrives. This ends the session, so that a new one is opened.
//! - Stuck: the prefetch window is full of unsettled messages and none is being settled. This is only reported,
//!   because the cause is elsewhere, for example a broker that blocks publishers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use broker::{Broker, BrokerError};
use tracing::{info, warn};

/// Interval between samples. A stall shows at the second one.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long the broker may take to report the length of the queue.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Progress of a session's source consumer.
#[derive(Debug, Default)]
pub(super) struct SourceProgress {
    /// False while there is no plugin.
    consuming: AtomicBool,
    taken: AtomicU64,
    ended: AtomicU64,
    stalled: AtomicBool,
}

impl SourceProgress {
    pub(super) fn is_consuming(&self) -> bool {
        self.consuming.load(Ordering::Relaxed)
    }

    /// Returns whether the source is stuck.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Returns the number of messages taken and neither settled nor given back.
    pub(super) fn unsettled(&self) -> u64 {
        let ended = self.ended.load(Ordering::Relaxed);
        self.taken.load(Ordering::Relaxed).saturating_sub(ended)
    }

    pub(super) fn consuming(&self, consuming: bool) {
        self.consuming.store(consuming, Ordering::Relaxed);
    }

    pub(super) fn taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message as settled or given back.
    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// One sample of the progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct StallSample {
    taken: u64,
    ended: u64,
    /// Messages that wait in the queue. `None` if the broker did not say, or none are wanted.
    ready: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StallDiagnosis {
    Well,
    /// No message arrives.
    Starved,
    /// No message is settled.
    Stuck,
}

fn judge(before: StallSample, now: StallSample, prefetch: u64) -> StallDiagnosis {
    let in_flight = now.taken.saturating_sub(now.ended);
    if in_flight >= prefetch && before.ended == now.ended {
        return StallDiagnosis::Stuck;
    }
    let waiting = |look: StallSample| look.ready.is_some_and(|ready| ready > 0);
    if in_flight < prefetch && before.taken == now.taken && waiting(before) && waiting(now) {
        return StallDiagnosis::Starved;
    }
    StallDiagnosis::Well
}

/// Watches for stalls. Runs for as long as it is polled, and returns when the session should be given up.
pub(super) async fn watch(broker: &Broker, queue: &str, progress: &SourceProgress, prefetch: u16) -> BrokerError {
    let mut before = StallSample::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let inspected = tokio::time::timeout(INSPECT_TIMEOUT, broker.inspect(queue)).await;
        let ready = inspected.ok().and_then(Result::ok).flatten().map(|state| state.ready);
        let now = StallSample {
            taken: progress.taken.load(Ordering::Relaxed),
            ended: progress.ended.load(Ordering::Relaxed),
            ready: ready.filter(|_| progress.consuming.load(Ordering::Relaxed)),
        };
        let stuck = progress.is_stalled();
        match judge(before, now, prefetch.into()) {
            StallDiagnosis::Starved => {
                let seconds = LOOK_EVERY.as_secs();
                return BrokerError::Lost(format!("messages wait in queue {queue:?}, and none came for {seconds} s"));
            }
            StallDiagnosis::Stuck if !stuck => {
                progress.stalled.store(true, Ordering::Relaxed);
                warn!(
                    "stalled: all {prefetch} messages that this host may hold are unsettled, and none was settled \
                     for {} s; is the broker blocking publishers, or a queue full?",
                    LOOK_EVERY.as_secs()
                );
            }
            StallDiagnosis::Well if stuck => {
                progress.stalled.store(false, Ordering::Relaxed);
                info!("no longer stalled");
            }
            StallDiagnosis::Stuck | StallDiagnosis::Well => {}
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(taken: u64, ended: u64, ready: u64) -> StallSample {
        StallSample { taken, ended, ready: Some(ready) }
    }

    #[test]
    fn a_stall_is_what_does_not_go_on_though_it_could() {
        let unknown = StallSample { ready: None, ..look(10, 10, 0) };
        for (before, now, verdict) in [
            (look(10, 10, 0), look(10, 10, 0), StallDiagnosis::Well),
            (look(10, 10, 5), look(10, 10, 5), StallDiagnosis::Starved),
            (look(10, 10, 0), look(10, 10, 5), StallDiagnosis::Well),
            (look(10, 10, 5), look(11, 10, 5), StallDiagnosis::Well),
            (look(10, 10, 5), unknown, StallDiagnosis::Well),
            // A full window explains why no message arrives.
            (look(14, 10, 5), look(14, 10, 5), StallDiagnosis::Stuck),
            (look(14, 10, 0), look(14, 10, 0), StallDiagnosis::Stuck),
            (look(14, 10, 5), look(15, 11, 5), StallDiagnosis::Well),
            (look(12, 10, 0), look(12, 10, 0), StallDiagnosis::Well),
        ] {
            assert_eq!(judge(before, now, 4), verdict, "{before:?} {now:?}");
        }
    }
}
