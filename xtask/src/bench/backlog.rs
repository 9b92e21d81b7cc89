//! Measures whether an event's cost and the host's memory depend on the length of the backlog.
//!
//! Each measurement covers the same number of events on a warm host. A backlog of a thousand is too short for that. It
//! is refilled repeatedly while a signal suspends the host, as scheduling on a loaded machine would.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::Bench;
use crate::bench::place::{BenchEnvironment, Engine, Host, Stretch};
use crate::bench::statistics::median;
use crate::bench::table::{Budget, Row};
use crate::process;

const ROUNDS: usize = 3;
const SMALL: usize = 1000;
const BACKLOGS: [usize; 3] = [SMALL, 100_000, 1_000_000];
/// Events after which the host is warm.
const WARM_UP: usize = 5000;
const EVENTS: usize = 20_000;
/// Quiet time that ends a burst, which takes about 50 ms.
const BURST_REST_TIME: Duration = Duration::from_millis(20);

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    Engine::both(|engine| of_engine(bench, engine))
}

fn of_engine(bench: &Bench<'_>, engine: Engine) -> anyhow::Result<Vec<Row>> {
    let mut places = Vec::new();
    for backlog in BACKLOGS {
        let place = BenchEnvironment::new(bench, engine, "")?;
        place.plug_logger("logger")?;
        place.apply_topology()?;
        if backlog > SMALL {
            let backlog = bench.count(backlog);
            bench.say(format!("{}: a backlog of {backlog}", engine.title()));
            place.fill(backlog)?;
        }
        places.push(place);
    }
    let mut stretches = vec![Vec::new(); BACKLOGS.len()];
    for round in 1..=ROUNDS {
        for ((backlog, place), stretches) in BACKLOGS.iter().zip(&places).zip(&mut stretches) {
            let stretch = if *backlog == SMALL { in_bursts(bench, place)? } else { of_a_long_one(bench, place)? };
            bench.say(format!("{}, backlog of {backlog}, round {round} of {ROUNDS}: {stretch}", engine.title()));
            stretches.push(stretch);
        }
    }
    let of = |at: usize, of: fn(&Stretch) -> f64| median(stretches[at].iter().map(of));
    let mut rows = Vec::new();
    for (at, backlog) in [(1, "100,000"), (2, "1,000,000")] {
        let row = |what: &str, unit, number: fn(&Stretch) -> f64| {
            Row::new(format!("{what}, backlog of {backlog}, {}", engine.title()), unit, of(at, number))
                .against("of 1,000", of(0, number))
                .within(Budget::RatioAtMost(1.1))
        };
        rows.push(row("processor time of an event", "µs", |stretch| stretch.processor_micros));
        rows.push(row("host memory", "MiB", |stretch| stretch.resident));
    }
    Ok(rows)
}

/// Measures a long backlog, then refills it.
fn of_a_long_one(bench: &Bench<'_>, place: &BenchEnvironment<'_>) -> anyhow::Result<Stretch> {
    let mut host = place.start(&[])?;
    let stretch = host.measure(bench.count(WARM_UP), bench.count(EVENTS))?;
    let handled = host.stop_and_count()?;
    place.fill(handled)?;
    Ok(stretch)
}

fn in_bursts(bench: &Bench<'_>, place: &BenchEnvironment<'_>) -> anyhow::Result<Stretch> {
    let (warm_up, bursts) = (bench.count(WARM_UP) / SMALL, (bench.count(EVENTS) / SMALL).max(1));
    let mut host = place.start(&[])?;
    for _ in 0..warm_up {
        burst(place, &mut host)?;
    }
    let (mut processor, mut seconds) = (Duration::ZERO, 0.0);
    for _ in 0..bursts {
        let of_burst = burst(place, &mut host)?;
        processor += of_burst.0;
        seconds += of_burst.1;
    }
    let resident = process::resident(host.id())?;
    host.stop()?;
    Ok(Stretch::new(bursts * SMALL, seconds, processor, resident))
}

/// Returns the host's CPU time, and the seconds from the first event to the last.
fn burst(place: &BenchEnvironment<'_>, host: &mut Host) -> anyhow::Result<(Duration, f64)> {
    let process = Pid::from_raw(host.id().cast_signed()).context("a process without an id")?;
    kill_process(process, Signal::STOP)?;
    let filled = place.fill(SMALL);
    let before = process::fine_processor_time(host.id())?;
    // Resume the host even after an error: a suspended process cannot stop cleanly.
    kill_process(process, Signal::CONT)?;
    filled?;
    let tally = host.wait_for_lines(SMALL, BURST_REST_TIME)?;
    Ok((process::fine_processor_time(host.id())?.saturating_sub(before), tally.seconds()))
}
