//! What a load measured: how many, how fast, how long each waited for its confirmation.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::own_queue::Fate;
use crate::order::Status;

/// Latencies are kept to three digits.
const SIGNIFICANT_DIGITS: u8 = 3;

/// An hour, the longest that a confirmation may take.
const LATENCY_MICROS_MAX: u64 = 3_600_000_000;

/// A measurement under way.
#[derive(Debug)]
pub(crate) struct Measurement {
    count: u64,
    seed: u64,
    started: Instant,
    last_confirmed: Instant,
    /// In microseconds.
    latencies: Histogram<u64>,
    events: BTreeMap<Status, u64>,
}

/// A measurement, done.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// The events that were asked for.
    pub(crate) count: u64,
    /// The events that the broker has.
    pub(crate) confirmed: u64,
    /// From the start to the last confirmation.
    seconds: f64,
    /// Confirmed events per second.
    per_second: f64,
    /// From handing a message over to its confirmation.
    latency_ms: Latency,
    /// How often each came.
    events: BTreeMap<Status, u64>,
    /// What makes the same load again.
    seed: u64,
    /// Where it went.
    exchange: String,
    /// What became of it in the load's own queue, if it went there and that could be seen.
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
    /// The clock runs from here.
    pub(crate) fn start(count: u64, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            count,
            seed,
            started: now,
            last_confirmed: now,
            // It fails only for bounds that cross and for more than five digits.
            latencies: Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, SIGNIFICANT_DIGITS).expect("bounds that fit"),
            events: BTreeMap::new(),
        }
    }

    /// When the clock began to run.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// One event is confirmed.
    pub(crate) fn confirmed(&mut self, status: Status, latency: Duration) {
        self.last_confirmed = Instant::now();
        self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        *self.events.entry(status).or_default() += 1;
    }

    /// How many are confirmed.
    pub(crate) fn count_confirmed(&self) -> u64 {
        self.events.values().sum()
    }

    /// What came of it.
    pub(crate) fn report(self, exchange: &str, queue: Option<Fate>) -> Report {
        let seconds = self.last_confirmed.duration_since(self.started).as_secs_f64();
        let confirmed = self.count_confirmed();
        let at = |quantile| milliseconds(self.latencies.value_at_quantile(quantile));
        Report {
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

impl fmt::Display for Report {
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
        let Report { confirmed, latency_ms, .. } = measurement.report("orders", None);
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
