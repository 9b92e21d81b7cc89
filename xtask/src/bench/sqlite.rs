//! Compares a host that hands a backlog from a SQLite file to the logger with a bare loop over the same file.

use crate::bench::Bench;
use crate::bench::place::{BenchEnvironment, Engine, ratio, seconds_of_peer};
use crate::bench::statistics::median;
use crate::bench::table::{Budget, Row};

const ROUNDS: usize = 3;
const EVENTS: usize = 100_000;

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let events = bench.count(EVENTS);
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        bench.say(format!("SQLite, round {round} of {ROUNDS}: {events} events each"));
        // Use a new file each time: writing into the free space of an old one is faster.
        let place = BenchEnvironment::new(bench, Engine::Sqlite, "")?;
        place.plug_logger("logger")?;
        place.apply_topology()?;
        place.fill(events)?;
        let mut peer = bench.peer("drain");
        peer.arg(place.file("queue.db")).args([&place.queue, &events.to_string()]);
        bare.push(ratio(events, seconds_of_peer(peer)?));
        let place = BenchEnvironment::new(bench, Engine::Sqlite, "")?;
        place.plug_logger("logger")?;
        place.apply_topology()?;
        let work = place.work_off(events, 1)?;
        ours.push(work.per_second);
        bench.say(format!(
            "bare loop {:.0} /s, host {:.0} /s ({:.1} µs of processor time an event)",
            bare[round - 1],
            work.per_second,
            work.processor_micros
        ));
    }
    Ok(vec![
        Row::new("SQLite file → host → logger, backlog of 100,000", "/s", median(ours))
            .against("bare loop, batch claim and ack", median(bare))
            .within(Budget::RatioAtLeast(0.6))
            .within(Budget::AtLeast(15_000.0)),
    ])
}
