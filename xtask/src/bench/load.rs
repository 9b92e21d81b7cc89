//! Compares order-cli's publishing rate with that of a bare publisher with as many unconfirmed messages.

use anyhow::Context as _;

use crate::bench::Bench;
use crate::bench::place::{BenchEnvironment, Engine, ratio, run_to_end, seconds_of_peer};
use crate::bench::statistics::median;
use crate::bench::table::{Budget, Row};

const ROUNDS: usize = 3;
const EVENTS: usize = 100_000;
/// order-cli's default window.
const WINDOW: &str = "256";

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let events = bench.count(EVENTS);
    let place = BenchEnvironment::new(bench, Engine::RabbitMq, "")?;
    place.apply_topology()?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let mut peer = bench.peer("publish");
        peer.args([&*place.broker, &place.exchange, WINDOW, &events.to_string()]);
        bare.push(ratio(events, seconds_of_peer(peer)?));
        bench.node()?.ctl(&["purge_queue", &place.queue]);
        let mut load = place.order_cli();
        load.args(["--json", "load", "--mix", "created=100", "--window", WINDOW, "--count", &events.to_string()]);
        let report: serde_json::Value = serde_json::from_str(run_to_end(load)?.trim())?;
        ours.push(report["per_second"].as_f64().context("order-cli reports no rate")?);
        bench.node()?.ctl(&["purge_queue", &place.queue]);
        bench.say(format!(
            "publishing, round {round} of {ROUNDS}: bare lapin {:.0} /s, order-cli {:.0} /s",
            bare[round - 1],
            ours[round - 1]
        ));
    }
    let what = format!("order-cli load, RabbitMQ, {WINDOW} unconfirmed");
    Ok(vec![
        Row::new(what, "/s", median(ours))
            .against("bare lapin publisher", median(bare))
            .within(Budget::RatioAtLeast(0.85)),
    ])
}
