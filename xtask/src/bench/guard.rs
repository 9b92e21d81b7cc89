//! Measures the cost of checking each message before lapin does.

use anyhow::Context as _;

use crate::bench::Bench;
use crate::bench::place::run_to_end;
use crate::bench::table::{Budget, Row};

const MESSAGES: usize = 2_000_000;

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let mut peer = bench.peer("guard");
    peer.arg(bench.count(MESSAGES).to_string());
    let printed = run_to_end(peer)?;
    let mut numbers = printed.split_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next().and_then(Result::ok).context("the peer does not say how long it took");
    let (without, with) = (next()?, next()?);
    bench.say(format!("guard: {without:.2} µs a message without, {with:.2} µs with it"));
    Ok(vec![
        Row::new("a message of 1 KB through the guard and lapin's parser", "µs", with)
            .against("lapin's parser", without)
            .within(Budget::MoreAtMost(0.7)),
    ])
}
