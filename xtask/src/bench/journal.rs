//! Measures the cost of the journal: a host works off a backlog while its journal is switched on and off.
//!
//! Two hosts, or two moments a second apart, differ by more than the journal's cost. So stretches are short, and only
//! the ratio within each round counts. On a busy machine, CPU time is more reliable than elapsed time; it includes the
//! journal's own thread.

use std::{fmt, fs};

use crate::bench::Bench;
use crate::bench::place::{BenchEnvironment, Engine, Stretch, run_to_end};
use crate::bench::statistics::median;
use crate::bench::table::{Budget, Row};

const ROUNDS: usize = 60;
/// Rounds that are reported together.
const ROUNDS_TOLD: usize = 10;
/// Events of one stretch.
const EVENTS: usize = 4_000;
/// Events after each switch, until most earlier records are written and the CPU caches are warm.
const WARM_UP: usize = 3_000;
/// Size of the backlog in per cent of the measured events: the host continues during a switch.
const BACKLOG_PER_CENT: usize = 130;

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    Engine::both(|engine| of_engine(bench, engine))
}

fn of_engine(bench: &Bench<'_>, engine: Engine) -> anyhow::Result<Vec<Row>> {
    let (events, warm_up) = (bench.count(EVENTS), bench.count(WARM_UP));
    let place = BenchEnvironment::new(bench, engine, "")?;
    place.plug_logger("logger")?;
    place.apply_topology()?;
    place.fill(2 * ROUNDS * (warm_up + events) * BACKLOG_PER_CENT / 100)?;
    let mut host = place.start(&[])?;
    let settings = fs::read_to_string(place.file("host.toml"))?;
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let mut turns = [(false, &mut off), (true, &mut on)];
        // Alternate the order, so that effects on the first stretch hit both.
        if round % 2 == 0 {
            turns.reverse();
        }
        for (enabled, stretches) in turns {
            fs::write(place.file("host.toml"), format!("{settings}[journal]\nenabled = {enabled}\n"))?;
            run_to_end(place.host(&["reload"]))?;
            stretches.push(host.measure(warm_up, events)?);
        }
        if round % ROUNDS_TOLD == 0 {
            let told = round - ROUNDS_TOLD..round;
            bench.say(format!(
                "journal on {}, rounds {} to {round} of {ROUNDS}: {}",
                engine.title(),
                told.start + 1,
                Cost::of(&on[told.clone()], &off[told])
            ));
        }
    }
    host.stop()?;
    let cost = Cost::of(&on, &off);
    bench.say(format!("journal on {}: {cost}", engine.title()));
    let row = Row::new(format!("journal on, {}", engine.title()), "/s", cost.per_second * cost.kept);
    Ok(vec![row.against("off", cost.per_second).within(Budget::RatioAtLeast(0.97))])
}

struct Cost {
    /// Events per second without the journal.
    per_second: f64,
    /// Share of that rate with the journal: the median of the rounds' ratios.
    kept: f64,
    /// CPU time of an event in microseconds without the journal, and its increase with it in the next field.
    micros: f64,
    micros_more: f64,
}

impl Cost {
    /// Calculates the cost from the rounds.
    fn of(on: &[Stretch], off: &[Stretch]) -> Self {
        let rounds = || on.iter().zip(off);
        Self {
            per_second: median(off.iter().map(|off| off.per_second)),
            kept: median(rounds().map(|(on, off)| on.per_second / off.per_second)),
            micros: median(off.iter().map(|off| off.processor_micros)),
            micros_more: median(rounds().map(|(on, off)| on.processor_micros - off.processor_micros)),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, kept, micros, micros_more } = self;
        write!(
            f,
            "without it {per_second:.0} /s and {micros:.1} µs of processor time an event, with it {kept:.3} times as many and \
             {micros_more:+.1} µs"
        )
    }
}
