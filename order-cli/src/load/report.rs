//! The measurements of a load: number of events, rate, and confirmation latency.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::own_queue::Fate;
use crate::order::Status;

/// Significant digits of a latency.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Maximum latency in microseconds: one hour, the longest confirmation timeout.
const LATENCY_MICROS_MAX: u64 = 3_600_000_000;

/// A measurement in progress.
#[derive(Debug)]
pub(crate) struct Measurement {
    count: u64,
    seed: u64,
    started: Instant,
    last_confirmed: Instant,
    /// Latencies in microseconds.
    latencies: Histogram<u64>,
    events: BTreeMap<Status, u64>,
}

/// A finished measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LoadReport {
    /// Number of requested events.
    pub(crate) count: u64,
    /// Number of confirmed events.
    pub(crate) confirmed: u64,
    /// Seconds from the start to the last confirmation.
    seconds: f64,
    /// Confirmed events per second.
    per_second: f64,
    /// Time from handing a message over until its confirmation.
    latency_ms: Latency,
    /// Number of events of each status.
    events: BTreeMap<Status, u64>,
    /// Seed that reproduces the load.
    seed: u64,
    /// Exchange of the load.
    exchange: String,
    /// Outcome in the load's own queue, if it used that and the queue could be inspected.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<Fate>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Latency {
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

impl Measurement {
    /// Starts the clock.
    pub(crate) fn start(count: u64, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            count,
            seed,
            started: now,
            last_confirmed: now,
            // Fails only for crossed bounds or more than five digits.
            latencies: Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, SIGNIFICANT_DIGITS).expect("bounds that fit"),
            events: BTreeMap::new(),
        }
    }

    /// Returns when the clock was started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Records one confirmed event.
    pub(crate) fn confirmed(&mut self, status: Status, latency: Duration) {
        self.last_confirmed = Instant::now();
        self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        *self.events.entry(status).or_default() += 1;
    }

    /// Returns the number of confirmed events.
    pub(crate) fn count_confirmed(&self) -> u64 {
        self.events.values().sum()
    }

    /// Finishes the measurement.
    pub(crate) fn report(self, exchange: &str, queue: Option<Fate>) -> LoadReport {
        let seconds = self.last_confirmed.duration_since(self.started).as_secs_f64();
        let confirmed = self.count_confirmed();
        let at = |quantile| milliseconds(self.latencies.value_at_quantile(quantile));
        LoadReport {
            count: self.count,
            confirmed,
            seconds,
            per_second: rate(confirmed, seconds),
            latency_ms: Latency {
                p50: at(0.50),
                p95: at(0.95),
                p99: at(0.99),
                max: milliseconds(self.latencies.max()),
            },
            events: self.events,
            seed: self.seed,
            exchange: exchange.to_owned(),
            queue,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are significant")]
fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^52")]
fn rate(confirmed: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { confirmed as f64 / seconds } else { 0.0 }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { confirmed, count, seconds, per_second, latency_ms: Latency { p50, p95, p99, max }, .. } = self;
        writeln!(f, "confirmed  {confirmed} of {count} in {seconds:.2} s: {per_second:.0} per second")?;
        writeln!(f, "latency    p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")?;
        let events: Vec<_> = self.events.iter().map(|(status, count)| format!("{} {count}", status.name())).collect();
        writeln!(f, "events     {}", events.join(", "))?;
        writeln!(f, "seed       {}", self.seed)?;
        write!(f, "exchange   {}", self.exchange)?;
        self.queue.map_or(Ok(()), |fate| write!(f, "\n{fate}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_the_latency_that_most_events_kept_to() {
        let mut measurement = Measurement::start(100, 7);
        for millis in 1..=100 {
            measurement.confirmed(Status::Created, Duration::from_millis(millis));
        }
        let LoadReport { confirmed, latency_ms, .. } = measurement.report("orders", None);
        assert_eq!(confirmed, 100);
        for (measured, expected) in
            [(latency_ms.p50, 50.0), (latency_ms.p95, 95.0), (latency_ms.p99, 99.0), (latency_ms.max, 100.0)]
        {
            assert!((measured - expected).abs() / expected < 0.01, "{measured} for {expected}");
        }
    }

    #[test]
    fn a_report_tells_what_became_of_the_loads_own_queue() {
        for (fate, text) in [
            (
                Fate { removed: 9, ..Fate::default() },
                "order-cli.load: no host consumes it, so the events were removed again",
            ),
            (Fate { consumers: 1, waiting: 9, removed: 0 }, "order-cli.load: 1 consumer, 9 events wait"),
            (Fate { consumers: 2, waiting: 0, removed: 5 }, "order-cli.load: 2 consumers, 0 events wait"),
        ] {
            let report = Measurement::start(5, 7).report("order-cli.load", Some(fate)).to_string();
            assert!(report.ends_with(text), "{report}");
        }
    }

    #[test]
    fn a_load_of_nothing_has_a_report_too() {
        let report = Measurement::start(5, 7).report("orders", None);
        assert!(report.to_string().contains("0 of 5") && report.to_string().ends_with("exchange   orders"), "{report}");
        assert!(serde_json::to_string(&report).unwrap().contains("\"per_second\":0.0"));
    }
}
