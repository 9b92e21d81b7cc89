//! A stall is work that does not go on although nothing has failed: messages wait in the queue and
//! none arrives, or all that the host may hold are unsettled and none is being settled. The first
//! ends the session, so that a new one is opened; the second is only reported, for it has a reason
//! elsewhere (a broker that blocks publishing, say).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use broker::{Broker, BrokerError};
use tracing::{info, warn};

/// Between two looks. A stall shows at the second one.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long the broker may take to say what is in the queue.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How far a session's intake has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Not while there is no plugin.
    consuming: AtomicBool,
    taken: AtomicU64,
    ended: AtomicU64,
    stalled: AtomicBool,
}

impl Progress {
    pub(super) fn is_consuming(&self) -> bool {
        self.consuming.load(Ordering::Relaxed)
    }

    /// Of the second kind.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Taken, and neither settled nor given back.
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

    /// Settled, or given back.
    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    taken: u64,
    ended: u64,
    /// Messages that wait in the queue; `None` if the broker did not say, or none are wanted.
    ready: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StallDiagnosis {
    Well,
    /// None arrives.
    Starved,
    /// None is settled.
    Stuck,
}

fn judge(before: Look, now: Look, prefetch: u64) -> StallDiagnosis {
    let in_flight = now.taken.saturating_sub(now.ended);
    if in_flight >= prefetch && before.ended == now.ended {
        return StallDiagnosis::Stuck;
    }
    let waiting = |look: Look| look.ready.is_some_and(|ready| ready > 0);
    if in_flight < prefetch && before.taken == now.taken && waiting(before) && waiting(now) {
        return StallDiagnosis::Starved;
    }
    StallDiagnosis::Well
}

/// Goes on for as long as it is polled, and ends when the session had better be given up.
pub(super) async fn watch(broker: &Broker, queue: &str, progress: &Progress, prefetch: u16) -> BrokerError {
    let mut before = Look::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let inspected = tokio::time::timeout(INSPECT_TIMEOUT, broker.inspect(queue)).await;
        let ready = inspected.ok().and_then(Result::ok).flatten().map(|state| state.ready);
        let now = Look {
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

    fn look(taken: u64, ended: u64, ready: u64) -> Look {
        Look { taken, ended, ready: Some(ready) }
    }

    #[test]
    fn a_stall_is_what_does_not_go_on_though_it_could() {
        let unknown = Look { ready: None, ..look(10, 10, 0) };
        for (before, now, verdict) in [
            (look(10, 10, 0), look(10, 10, 0), StallDiagnosis::Well),
            (look(10, 10, 5), look(10, 10, 5), StallDiagnosis::Starved),
            (look(10, 10, 0), look(10, 10, 5), StallDiagnosis::Well),
            (look(10, 10, 5), look(11, 10, 5), StallDiagnosis::Well),
            (look(10, 10, 5), unknown, StallDiagnosis::Well),
            // A full window explains why none arrives.
            (look(14, 10, 5), look(14, 10, 5), StallDiagnosis::Stuck),
            (look(14, 10, 0), look(14, 10, 0), StallDiagnosis::Stuck),
            (look(14, 10, 5), look(15, 11, 5), StallDiagnosis::Well),
            (look(12, 10, 0), look(12, 10, 0), StallDiagnosis::Well),
        ] {
            assert_eq!(judge(before, now, 4), verdict, "{before:?} {now:?}");
        }
    }
}
