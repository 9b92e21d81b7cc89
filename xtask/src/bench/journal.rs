//! What the journal costs: one host works off a backlog, and has its journal switched on and off while it does.
//!
//! Two hosts differ by more than what is looked for. Its processor time says more than the clock does where others work on
//! the machine, too; the journal's own thread is in it.

use std::fs;

use crate::bench::Bench;
use crate::bench::place::{Engine, Place, Stretch, run_to_end};
use crate::bench::statistics::median;
use crate::bench::table::{Budget, Row};

const ROUNDS: usize = 24;
/// Of one stretch.
const EVENTS: usize = 10_000;
/// After each switch: until what was noted before it is written, and the processor's caches have what is wanted now.
const WARM_UP: usize = 7_000;
/// Of a hundred that the host needs at least: it goes on while the switch is made.
const BACKLOG_PER_CENT: usize = 130;

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    Engine::both(|engine| of_engine(bench, engine))
}

fn of_engine(bench: &Bench<'_>, engine: Engine) -> anyhow::Result<Vec<Row>> {
    let (events, warm_up) = (bench.count(EVENTS), bench.count(WARM_UP));
    let place = Place::new(bench, engine, "")?;
    place.plug_logger("logger")?;
    place.apply_topology()?;
    place.fill(2 * ROUNDS * (warm_up + events) * BACKLOG_PER_CENT / 100)?;
    let mut host = place.start(&[])?;
    let settings = fs::read_to_string(place.file("host.toml"))?;
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let mut turns = [(false, &mut off), (true, &mut on)];
        // So that what comes and goes with the first hits both.
        if round % 2 == 0 {
            turns.reverse();
        }
        for (enabled, stretches) in turns {
            fs::write(place.file("host.toml"), format!("{settings}[journal]\nenabled = {enabled}\n"))?;
            run_to_end(place.host(&["reload"]))?;
            stretches.push(host.measure(warm_up, events)?);
        }
        let (on, off): (&Stretch, &Stretch) = (&on[round - 1], &off[round - 1]);
        bench.say(format!(
            "journal on {}, round {round} of {ROUNDS}: {:.0} /s with {:.1} µs of processor time an event, without it {:.0} /s \
             with {:.1} µs",
            engine.title(),
            on.per_second,
            on.processor_micros,
            off.per_second,
            off.processor_micros
        ));
    }
    host.stop()?;
    let of = |stretches: &[Stretch], number: fn(&Stretch) -> f64| median(stretches.iter().map(number));
    bench.say(format!(
        "journal on {}: {:.1} µs of processor time an event with it, {:.1} µs without it",
        engine.title(),
        of(&on, |stretch| stretch.processor_micros),
        of(&off, |stretch| stretch.processor_micros)
    ));
    let per_second = |stretches: &[Stretch]| of(stretches, |stretch| stretch.per_second);
    let row = Row::new(format!("journal on, {}", engine.title()), "/s", per_second(&on));
    Ok(vec![row.against("off", per_second(&off)).within(Budget::RatioAtLeast(0.97))])
}
