//! Measures whether an event's cost depends on the number of plugins that do not want it.

use crate::bench::Bench;
use crate::bench::place::{BenchEnvironment, Engine, NEVER};
use crate::bench::statistics::median;
use crate::bench::table::{Budget, Row};
use crate::guests::PLUGINS;

const ROUNDS: usize = 5;
const PLUGIN_COUNTS: [usize; 3] = [1, 20, 100];
const WARM_UP: usize = 5000;
const EVENTS: usize = 40_000;
/// Additional events, so that no host reaches the end of its backlog during the measurement.
const REST: usize = 5000;

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    Engine::both(|engine| of_engine(bench, engine))
}

fn of_engine(bench: &Bench<'_>, engine: Engine) -> anyhow::Result<Vec<Row>> {
    let (warm_up, events) = (bench.count(WARM_UP), bench.count(EVENTS));
    let mut places = Vec::new();
    for count in PLUGIN_COUNTS {
        let place = BenchEnvironment::new(bench, engine, "")?;
        place.plug_logger("logger")?;
        for number in 1..count {
            place.plug(&format!("idle-{number}"), PLUGINS, "logger", NEVER)?;
        }
        bench.say(format!("{}: a host with {count} plugins", engine.title()));
        place.apply_topology()?;
        places.push(place);
    }
    let mut stretches = vec![Vec::new(); PLUGIN_COUNTS.len()];
    for round in 1..=ROUNDS {
        for ((count, place), stretches) in PLUGIN_COUNTS.iter().zip(&places).zip(&mut stretches) {
            place.fill(warm_up + events + bench.count(REST))?;
            let mut host = place.start(&[])?;
            let stretch = host.measure(warm_up, events)?;
            host.stop()?;
            bench.say(format!("{}, {count} plugins, round {round} of {ROUNDS}: {stretch}", engine.title()));
            stretches.push(stretch);
        }
    }
    let of = |at: usize| median(stretches[at].iter().map(|stretch| stretch.processor_micros));
    let row = |(at, count): (usize, usize)| {
        Row::new(format!("processor time of an event, {count} plugins, one matching, {}", engine.title()), "µs", of(at))
            .against("with 1", of(0))
            .within(Budget::RatioAtMost(1.1))
    };
    Ok([(1, 20), (2, 100)].into_iter().map(row).collect())
}
