//! What the journal costs: a host works off the same backlog with it and without it.
//!
//! Its processor time says more than the clock does where others work on the machine, too; the journal's own thread is in
//! it.

use crate::bench::Bench;
use crate::bench::place::{Engine, Place, Stretch};
use crate::bench::statistics::median;
use crate::bench::table::{Budget, Row};

/// Many: what is looked for is less than what two rounds differ by.
const ROUNDS: usize = 9;
const EVENTS: usize = 50_000;

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    Engine::both(|engine| of_engine(bench, engine))
}

fn of_engine(bench: &Bench<'_>, engine: Engine) -> anyhow::Result<Vec<Row>> {
    let events = bench.count(EVENTS);
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let mut turns = [(false, &mut off), (true, &mut on)];
        // Who comes second finds the disk busy with what the first has written.
        if round % 2 == 0 {
            turns.reverse();
        }
        for (enabled, works) in turns {
            let place = Place::new(bench, engine, &format!("[journal]\nenabled = {enabled}"))?;
            place.plug_logger("logger")?;
            place.apply_topology()?;
            works.push(place.work_off(events, 1)?);
        }
        let (on, off) = (on[round - 1], off[round - 1]);
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
    let per_second = |works: Vec<Stretch>| median(works.iter().map(|work| work.per_second));
    let row = Row::new(format!("journal on, {}", engine.title()), "/s", per_second(on));
    Ok(vec![row.against("off", per_second(off)).within(Budget::RatioAtLeast(0.97))])
}
