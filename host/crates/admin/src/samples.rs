//! Samples are what happened in each of the last seconds; the page draws them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use delivery::Runners;
use jiff::Timestamp;
use serde::Serialize;
use telemetry::metrics::{Metrics, Tally};
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;

use crate::{Admin, rfc_3339};

const EVERY: Duration = Duration::from_secs(1);
/// That are kept.
const SAMPLES_MAX: usize = 300;
/// How far a stream may fall behind before it misses some.
const BEHIND_MAX: usize = 16;
/// A plugin's times are those of the last minutes, in so many parts of this length.
const PART: u32 = 30;
const PARTS_MAX: usize = 10;

/// What happened in one second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sample {
    at: String,
    /// Messages of the source that were settled for good, whatever they were.
    received: u64,
    /// Attempts that did their work.
    done: u64,
    failed: u64,
    /// Deliveries that were given up.
    dead: u64,
    /// From when a message came until it was acknowledged; none where none was.
    p50_micros: Option<u64>,
    p99_micros: Option<u64>,
    /// Calls that are being made.
    in_flight: usize,
}

/// The last ones, and those who wait for the next.
pub(super) struct Samples {
    state: Mutex<State>,
    next: broadcast::Sender<Sample>,
}

#[derive(Default)]
struct State {
    last: VecDeque<Sample>,
    plugins: BTreeMap<String, VecDeque<Tally>>,
}

/// What was counted until some moment.
#[derive(Clone, Copy)]
struct Counted {
    received: u64,
    done: u64,
    failed: u64,
    dead: u64,
    settled: Tally,
}

impl Counted {
    fn read(metrics: &Metrics) -> Self {
        let host = &metrics.host;
        Self {
            received: [&host.routed, &host.unmatched, &host.duplicate, &host.undecodable, &host.quarantined]
                .iter()
                .map(|one| one.get())
                .sum(),
            done: host.succeeded.get(),
            failed: host.failed.get(),
            dead: host.dead.get(),
            settled: host.settled.tally(),
        }
    }

    fn since(&self, before: &Self, at: Timestamp, in_flight: usize) -> Sample {
        let settled = self.settled.since(&before.settled);
        Sample {
            at: rfc_3339(at),
            received: self.received - before.received,
            done: self.done - before.done,
            failed: self.failed - before.failed,
            dead: self.dead - before.dead,
            p50_micros: settled.percentile(50),
            p99_micros: settled.percentile(99),
            in_flight,
        }
    }
}

impl Samples {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), next: broadcast::Sender::new(BEHIND_MAX) }
    }

    /// The oldest first.
    pub(super) fn last(&self) -> Vec<Sample> {
        self.state().last.iter().cloned().collect()
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Sample> {
        self.next.subscribe()
    }

    /// What a plugin's attempts took in the last minutes.
    pub(super) fn times_of(&self, plugin: &str, until: &Tally) -> Tally {
        self.state().plugins.get(plugin).and_then(|parts| parts.front()).map_or(*until, |start| until.since(start))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, sample: Sample) {
        let mut state = self.state();
        if state.last.len() >= SAMPLES_MAX {
            state.last.pop_front();
        }
        state.last.push_back(sample.clone());
        drop(state);
        // Nobody may be waiting for it.
        let _ = self.next.send(sample);
    }

    fn mark(&self, runners: &Runners) {
        let mut state = self.state();
        state.plugins.retain(|name, _| runners.iter().any(|runner| *runner.name == **name));
        for runner in runners.iter() {
            // What it did before it was first seen here counts, too.
            let parts = state.plugins.entry(runner.name.to_string()).or_insert_with(|| [Tally::default()].into());
            if parts.len() >= PARTS_MAX {
                parts.pop_front();
            }
            parts.push_back(runner.metrics.attempt_times.tally());
        }
    }
}

/// Takes one each second, for as long as it is polled.
pub(super) async fn take(admin: Arc<Admin>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is at once.
    tick.tick().await;
    let sources = &admin.sources;
    let mut before = Counted::read(&sources.metrics);
    for second in 0_u32.. {
        tick.tick().await;
        let runners = sources.control.registry.runners();
        let now = Counted::read(&sources.metrics);
        let in_flight = runners.iter().map(|runner| runner.in_flight()).sum();
        admin.samples.keep(now.since(&before, Timestamp::now(), in_flight));
        before = now;
        if second.is_multiple_of(PART) {
            admin.samples.mark(&runners);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_what_happened_since_the_one_before() {
        let metrics = Metrics::default();
        let plugin = metrics.of_plugin("p");
        plugin.attempted(telemetry::metrics::Ended::Done, Duration::from_millis(1));
        let before = Counted::read(&metrics);
        metrics.host.routed.add(2);
        metrics.host.duplicate.one_more();
        plugin.attempted(telemetry::metrics::Ended::Reject, Duration::from_millis(1));
        plugin.gave_up(telemetry::metrics::GivenUp::Rejected);
        metrics.host.settled.took(Duration::from_millis(10));
        let sample = Counted::read(&metrics).since(&before, Timestamp::UNIX_EPOCH, 4);
        assert_eq!((sample.received, sample.done, sample.failed, sample.dead), (3, 0, 1, 1));
        assert_eq!((sample.p50_micros, sample.in_flight), (Some(10_000), 4));
        let next = Counted::read(&metrics).since(&Counted::read(&metrics), Timestamp::UNIX_EPOCH, 0);
        assert_eq!((next.received, next.p50_micros), (0, None));
    }

    #[test]
    fn only_the_last_are_kept() {
        let samples = Samples::new();
        let metrics = Metrics::default();
        let counted = Counted::read(&metrics);
        let mut stream = samples.subscribe();
        for in_flight in 0..SAMPLES_MAX + 5 {
            samples.keep(counted.since(&counted, Timestamp::UNIX_EPOCH, in_flight));
        }
        assert_eq!(samples.last().len(), SAMPLES_MAX);
        assert_eq!(samples.last()[0].in_flight, 5);
        assert!(matches!(stream.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
    }
}
