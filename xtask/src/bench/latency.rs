//! Measures the time of an event from its publisher to the plugin, at a steady rate far below the machine's limit.
//!
//! The event contains its publishing time, and the host's log shows when the logger wrote it.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use testbed::ChildGuard;

use crate::bench::place::{BenchEnvironment, Engine, run_to_end};
use crate::bench::statistics::{median, percentile};
use crate::bench::table::{Budget, Row};
use crate::bench::{Bench, PREFETCH};

const ROUNDS: usize = 3;
const EVENTS: usize = 4000;
const RATE: usize = 500;
/// Time to ignore at the start, while connections and caches are new.
const WARM_UP: Duration = Duration::from_secs(1);
/// Time after which the breaker of a hanging plugin is open: ten calls have exceeded their limit of one second.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
const PEER_LIMIT: Duration = Duration::from_mins(1);

/// Bad neighbours, with their settings.
const NEIGHBOURS: [(&str, &str); 2] =
    [("hangs", "[limits]\ntime = \"1s\"\n[config]\nact = \"loop\"\n"), ("fails", "[config]\nact = \"retry\"\n")];

/// Latencies in milliseconds.
#[derive(Clone, Copy)]
struct Waits {
    p50: f64,
    p99: f64,
    /// Percentile of the events published after [`SETTLED_AFTER`].
    settled_p99: f64,
}

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let place = place(bench, Engine::RabbitMq, false)?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        bench.say(format!("latency, RabbitMQ, round {round} of {ROUNDS}: {RATE} events per second"));
        bare.push(of_consumer(bench, &place)?);
        ours.push(of_host(bench, &place)?);
    }
    let row = |what: &str, of: fn(&Waits) -> f64, most| {
        Row::new(format!("publish → logger called, {RATE}/s, RabbitMQ, {what}"), "ms", median(ours.iter().map(of)))
            .against("bare lapin consumer", median(bare.iter().map(of)))
            .within(Budget::RatioAtMost(most))
    };
    Ok(vec![row("p50", |waits| waits.p50, 1.5), row("p99", |waits| waits.p99, 2.0)])
}

/// Compares the logger beside a plugin that hangs on every event and one that fails on every event
/// with the logger alone.
pub(super) fn measure_isolation(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for engine in Engine::ALL {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for round in 1..=ROUNDS {
            bench.say(format!("isolation, {}, round {round} of {ROUNDS}: {RATE} events per second", engine.title()));
            // Use new places each time: events waiting for a bad neighbour would change the next round.
            alone.push(of_host(bench, &place(bench, engine, false)?)?);
            beside.push(of_host(bench, &place(bench, engine, true)?)?);
        }
        let row = |what: &str, of: fn(&Waits) -> f64| {
            let what = format!("beside one that hangs and one that fails, {RATE}/s, {}, {what}", engine.title());
            Row::new(what, "ms", median(beside.iter().map(of))).against("alone", median(alone.iter().map(of)))
        };
        rows.push(row("p99", |waits| waits.p99).within(Budget::RatioAtMost(1.1)));
        rows.push(row("p99 from second 3 on", |waits| waits.settled_p99));
        rows.push(row("p50", |waits| waits.p50));
    }
    Ok(rows)
}

fn place<'b>(bench: &'b Bench<'b>, engine: Engine, neighbours: bool) -> anyhow::Result<BenchEnvironment<'b>> {
    let place = BenchEnvironment::new(bench, engine, "")?;
    place.plug_logger("logger")?;
    for (name, toml) in NEIGHBOURS.iter().filter(|_| neighbours) {
        place.plug_misbehaver(name, toml)?;
    }
    place.apply_topology()?;
    Ok(place)
}

fn publish(bench: &Bench<'_>, place: &BenchEnvironment<'_>) -> anyhow::Result<()> {
    let mut publisher = bench.peer("tick");
    publisher.args([&*place.broker, &place.exchange, &EVENTS.to_string(), &RATE.to_string()]);
    run_to_end(publisher).map(drop)
}

fn of_consumer(bench: &Bench<'_>, place: &BenchEnvironment<'_>) -> anyhow::Result<Waits> {
    let mut peer = bench.peer("consume");
    peer.args([&place.broker, &place.queue, PREFETCH, &EVENTS.to_string(), "--times"]);
    let peer = ChildGuard::spawn(peer);
    testbed::eventually(PEER_LIMIT, "the bare consumer consumes", || peer.stdout().contains("ready"));
    publish(bench, place)?;
    let ended = peer.wait_timeout(PEER_LIMIT).context("the bare consumer does not end")?;
    anyhow::ensure!(ended.success(), "the bare consumer failed ({ended}): {}", peer.stderr());
    let times = |line: &str| {
        let (sent, arrived) = line.split_once(' ')?;
        Some((sent.parse().ok()?, arrived.parse().ok()?))
    };
    Ok(evaluate(&peer.stdout().lines().filter_map(times).collect::<Vec<_>>()))
}

fn of_host(bench: &Bench<'_>, place: &BenchEnvironment<'_>) -> anyhow::Result<Waits> {
    let mut host = place.start(&["--log-format", "json"])?;
    publish(bench, place)?;
    let times = host.wait_for(EVENTS, handled)?;
    host.stop()?;
    Ok(evaluate(&times))
}

/// Returns when an event was published and when the logger wrote it, in microseconds since 1970, or
/// `None` for other lines.
fn handled(line: &str) -> Option<(i64, i64)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let event: serde_json::Value = serde_json::from_str(line["message"].as_str()?).ok()?;
    let at: Timestamp = line["timestamp"].as_str()?.parse().ok()?;
    Some((event["data"]["sent_at"].as_i64()?, at.as_microsecond()))
}

fn evaluate(times: &[(i64, i64)]) -> Waits {
    let first = times.iter().map(|(sent, _)| *sent).min().unwrap_or_default();
    let waits = |from: Duration| {
        let from = first + i64::try_from(from.as_micros()).unwrap_or(i64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "they are some thousands")]
        let wait = |(sent, at): &(i64, i64)| (at - sent) as f64 / 1e3;
        times.iter().filter(|(sent, _)| *sent >= from).map(wait).collect::<Vec<_>>()
    };
    let (warm, settled) = (waits(WARM_UP), waits(SETTLED_AFTER));
    Waits { p50: percentile(&warm, 50), p99: percentile(&warm, 99), settled_p99: percentile(&settled, 99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loggers_line_says_both_times() {
        let line = r#"{"timestamp":"2026-11-27T15:00:00.000250Z","level":"INFO","message":"{\"type\":\"OrderCreated\",\"data\":{\"sent_at\":1795791599999250}}","plugin":"logger"}"#;
        let (sent, at) = handled(line).unwrap();
        assert_eq!(at - sent, 1000);
        assert_eq!(handled(r#"{"timestamp":"2026-11-27T15:00:00Z","message":"ready: consuming"}"#), None);
        assert_eq!(handled("no JSON"), None);
    }

    #[test]
    fn the_warm_up_does_not_count() {
        // Events are a tenth of a second apart. The first ten take long, and so does the last.
        let times: Vec<_> = (0..100_i64)
            .map(|number| {
                let wait = if number < 10 { 900_000 } else { 2_000 } + if number == 99 { 6_000 } else { 0 };
                (number * 100_000, number * 100_000 + wait)
            })
            .collect();
        let waits = evaluate(&times);
        assert!((waits.p50 - 2.0).abs() < 1e-9 && (waits.p99 - 8.0).abs() < 1e-9);
        assert!((waits.settled_p99 - 8.0).abs() < 1e-9);
    }
}
