//! Samples of what happened in each of the last seconds, for the dashboard's plots.

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
/// Maximum number of samples kept.
const SAMPLES_MAX: usize = 300;
/// Number of samples that a stream may fall behind before it misses some.
const BEHIND_MAX: usize = 16;
/// Length in seconds of one part of the window for a plugin's attempt times. The window has at most [`PARTS_MAX`]
/// parts.
const PART: u32 = 30;
const PARTS_MAX: usize = 10;

/// Statistics of one second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct StatsSample {
    at: String,
    /// Messages of the source that were settled, whatever they were.
    received: u64,
    /// Attempts that succeeded.
    done: u64,
    failed: u64,
    /// Deliveries that were dead-lettered.
    dead: u64,
    /// Percentiles of the time from receiving a message to acknowledging it; `None` without any.
    p50_micros: Option<u64>,
    p99_micros: Option<u64>,
    /// Calls in flight.
    in_flight: usize,
}

/// The last samples, and a channel for the next.
pub(super) struct Samples {
    state: Mutex<SampleHistory>,
    next: broadcast::Sender<StatsSample>,
}

#[derive(Default)]
struct SampleHistory {
    last: VecDeque<StatsSample>,
    plugins: BTreeMap<String, VecDeque<Tally>>,
}

/// Values of the counters at one moment.
#[derive(Clone, Copy)]
struct CounterSnapshot {
    received: u64,
    done: u64,
    failed: u64,
    dead: u64,
    settled: Tally,
}

impl CounterSnapshot {
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

    fn since(&self, before: &Self, at: Timestamp, in_flight: usize) -> StatsSample {
        let settled = self.settled.since(&before.settled);
        StatsSample {
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

    /// Returns the samples, oldest first.
    pub(super) fn last(&self) -> Vec<StatsSample> {
        self.state().last.iter().cloned().collect()
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<StatsSample> {
        self.next.subscribe()
    }

    /// Returns the tally of a plugin's attempt times in the last minutes.
    pub(super) fn times_of(&self, plugin: &str, until: &Tally) -> Tally {
        self.state().plugins.get(plugin).and_then(|parts| parts.front()).map_or(*until, |start| until.since(start))
    }

    fn state(&self) -> MutexGuard<'_, SampleHistory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, sample: StatsSample) {
        let mut state = self.state();
        if state.last.len() >= SAMPLES_MAX {
            state.last.pop_front();
        }
        state.last.push_back(sample.clone());
        drop(state);
        // Sending fails if nobody is listening, which does not matter.
        let _ = self.next.send(sample);
    }

    fn mark(&self, runners: &Runners) {
        let mut state = self.state();
        state.plugins.retain(|name, _| runners.iter().any(|runner| *runner.name == **name));
        for runner in runners.iter() {
            // Start from zero, so that attempts before the first mark count.
            let parts = state.plugins.entry(runner.name.to_string()).or_insert_with(|| [Tally::default()].into());
            if parts.len() >= PARTS_MAX {
                parts.pop_front();
            }
            parts.push_back(runner.metrics.attempt_times.tally());
        }
    }
}

/// Takes a sample each second, for as long as the future is polled.
pub(super) async fn take(admin: Arc<Admin>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is immediate.
    tick.tick().await;
    let sources = &admin.sources;
    let mut before = CounterSnapshot::read(&sources.metrics);
    for second in 0_u32.. {
        tick.tick().await;
        let runners = sources.host.control.registry.runners();
        let now = CounterSnapshot::read(&sources.metrics);
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
        let before = CounterSnapshot::read(&metrics);
        metrics.host.routed.add(2);
        metrics.host.duplicate.one_more();
        plugin.attempted(telemetry::metrics::Ended::Reject, Duration::from_millis(1));
        plugin.gave_up(telemetry::metrics::GivenUp::Rejected);
        metrics.host.settled.took(Duration::from_millis(10));
        let sample = CounterSnapshot::read(&metrics).since(&before, Timestamp::UNIX_EPOCH, 4);
        assert_eq!((sample.received, sample.done, sample.failed, sample.dead), (3, 0, 1, 1));
        assert_eq!((sample.p50_micros, sample.in_flight), (Some(10_000), 4));
        let next = CounterSnapshot::read(&metrics).since(&CounterSnapshot::read(&metrics), Timestamp::UNIX_EPOCH, 0);
        assert_eq!((next.received, next.p50_micros), (0, None));
    }

    #[test]
    fn only_the_last_are_kept() {
        let samples = Samples::new();
        let metrics = Metrics::default();
        let counted = CounterSnapshot::read(&metrics);
        let mut stream = samples.subscribe();
        for in_flight in 0..SAMPLES_MAX + 5 {
            samples.keep(counted.since(&counted, Timestamp::UNIX_EPOCH, in_flight));
        }
        assert_eq!(samples.last().len(), SAMPLES_MAX);
        assert_eq!(samples.last()[0].in_flight, 5);
        assert!(matches!(stream.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
    }
}
