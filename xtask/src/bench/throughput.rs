//! Compares a host that hands a backlog in RabbitMQ to plugins with consumers that do less.

use std::process::Command;

use crate::bench::place::{BenchEnvironment, Engine, JSON_LINES, Stretch, ratio, seconds_of_peer};
use crate::bench::statistics::median;
use crate::bench::table::{Budget, Row};
use crate::bench::{Bench, PREFETCH};
use crate::guests::PLUGINS;
use crate::test;

const ROUNDS: usize = 3;
const EVENTS: usize = 100_000;

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let python = test::provide_python(bench.project, bench.progress)?;
    let place = BenchEnvironment::new(bench, Engine::RabbitMq, "")?;
    place.plug_logger("logger")?;
    place.apply_topology()?;
    let text = BenchEnvironment::new(bench, Engine::RabbitMq, "")?;
    text.plug("logger", PLUGINS, "logger", "")?;
    text.apply_topology()?;
    let three = BenchEnvironment::new(bench, Engine::RabbitMq, "")?;
    for number in 100..103 {
        three.plug_variant(number, JSON_LINES)?;
    }
    three.apply_topology()?;
    let thrice = BenchEnvironment::new(bench, Engine::RabbitMq, "")?;
    for name in ["logger", "logger-2", "logger-3"] {
        thrice.plug_logger(name)?;
    }
    thrice.apply_topology()?;
    let events = bench.count(EVENTS);
    let (mut limit, mut ours, mut pika) = (vec![], vec![], vec![]);
    let (mut ours_three, mut ours_thrice, mut ours_text) = (vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        bench.say(format!("RabbitMQ, round {round} of {ROUNDS}: {events} events each"));
        place.fill(events)?;
        let mut peer = bench.peer("consume");
        peer.args([&place.broker, &place.queue, PREFETCH, &events.to_string()]);
        limit.push(ratio(events, seconds_of_peer(peer)?));
        ours.push(place.work_off(events, 1)?);
        place.fill(events)?;
        let mut consumer = Command::new(&python);
        consumer.args(["-c", include_str!("tutorial_consumer.py")]);
        consumer.args([&place.broker, &place.queue, PREFETCH, &events.to_string()]).arg(place.file("tutorial.log"));
        pika.push(ratio(events, seconds_of_peer(consumer)?));
        ours_three.push(three.work_off(events, 3)?);
        ours_thrice.push(thrice.work_off(events, 3)?);
        ours_text.push(text.work_off(events, 1)?);
        let (one, three) = (ours[round - 1], ours_three[round - 1]);
        bench.say(format!(
            "bare lapin {:.0} /s, pika {:.0} /s; host: {one}; with three plugins: {three}; with one three times: {}; \
             with the default text: {}",
            limit[round - 1],
            pika[round - 1],
            ours_thrice[round - 1],
            ours_text[round - 1]
        ));
    }
    let per_second = |work: &[Stretch]| median(work.iter().map(|work| work.per_second));
    let (one, three) = (per_second(&ours), per_second(&ours_three));
    Ok(vec![
        Row::new("RabbitMQ quorum queue → host → logger, backlog of 100,000", "/s", one)
            .against("bare lapin, cumulative acks", median(limit))
            .within(Budget::RatioAtLeast(0.6)),
        Row::new("the same", "/s", one)
            .against("tutorial's pika, manual acks", median(pika))
            .within(Budget::RatioAtLeast(4.0)),
        Row::new("the same with 3 plugins", "/s", three).against("with 1", one).within(Budget::RatioAtLeast(0.45)),
        Row::new("the same with 3 plugins of one file", "/s", per_second(&ours_thrice)).against("with 1", one),
        Row::new("the same with the logger as it comes, text", "/s", per_second(&ours_text)).against("as JSON", one),
    ])
}
