//! Measures the time until a host with many plugins is ready: first when each must be compiled, and later
//! from the compile cache.

use std::time::Duration;

use crate::bench::Bench;
use crate::bench::place::{BenchEnvironment, Engine};
use crate::bench::statistics::median;
use crate::bench::table::{Budget, Row};

const COUNT: u8 = 20;
const STARTS: usize = 7;

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for engine in Engine::ALL {
        let place = BenchEnvironment::new(bench, engine, "")?;
        for number in 0..COUNT {
            place.plug_variant(number, "")?;
        }
        bench.say(format!("{}: {STARTS} starts with {COUNT} plugins, after one that compiles them", engine.title()));
        let first = start(&place)?;
        let later = (0..STARTS).map(|_| start(&place)).collect::<Result<Vec<_>, _>>()?;
        let later = median(later.into_iter().map(|start| start.as_secs_f64() * 1e3));
        bench.say(format!("compiling them {} ms, with their code kept {later:.0} ms", first.as_millis()));
        rows.push(
            Row::new(format!("start to ready with {COUNT} cached plugins, {}", engine.title()), "ms", later)
                .within(Budget::AtMost(300.0)),
        );
    }
    Ok(rows)
}

fn start(place: &BenchEnvironment<'_>) -> anyhow::Result<Duration> {
    let host = place.start(&[])?;
    let took = host.start;
    host.stop()?;
    Ok(took)
}
