//! Measures memory and CPU time of an idle host with three configured plugins.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::bench::place::{BenchEnvironment, Engine, Host, NEVER, REST_TIME};
use crate::bench::table::{Budget, Row};
use crate::guests::PLUGINS;
use crate::process;

/// Time to wait until work at the start is over.
const REST: Duration = Duration::from_secs(3);
const TIME: Duration = Duration::from_secs(20);
/// Events handled before a host counts as used.
const EVENTS: usize = 20_000;

const MAIL: &str = "[mail]\nrelay = \"smtp://127.0.0.1:2525\"\ntls = \"none\"\nfrom = \"shop@example.com\"";
const EMAIL: &str = "[grants]\nmail = [\"*@example.com\"]\n[config]\nto = \"{{ data.email }}\"\n";
const WEBHOOK: &str =
    "[grants]\nhttp = [\"https://hooks.example.com\"]\n[config]\nurl = \"https://hooks.example.com/orders\"\n";

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let places = Engine::ALL.map(|engine| place(bench, engine));
    let (mut rows, mut hosts) = (Vec::new(), Vec::new());
    for place in &places {
        let place = place.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        hosts.push(place.start(&[])?);
    }
    bench.say(format!("two idle hosts with three plugins, for {} s", TIME.as_secs()));
    rows.extend(look(&hosts, "idle", true)?);
    for (place, host) in places.iter().flatten().zip(&mut hosts) {
        place.fill(bench.count(EVENTS))?;
        host.wait_for_lines(bench.count(EVENTS), REST_TIME)?;
    }
    bench.say(format!("the same two after {} events, for {} s", bench.count(EVENTS), TIME.as_secs()));
    rows.extend(look(&hosts, "idle after 20,000 events", false)?);
    for host in hosts {
        host.stop()?;
    }
    Ok(rows)
}

fn place<'b>(bench: &'b Bench<'b>, engine: Engine) -> anyhow::Result<BenchEnvironment<'b>> {
    let place = BenchEnvironment::new(bench, engine, MAIL)?;
    place.plug_logger("logger")?;
    place.plug("email", PLUGINS, "email", &format!("{EMAIL}{NEVER}"))?;
    place.plug("webhook", PLUGINS, "webhook", &format!("{WEBHOOK}{NEVER}"))?;
    place.apply_topology()?;
    Ok(place)
}

/// Measures the hosts. `fresh` hosts have not worked yet; the memory budget applies to them.
fn look(hosts: &[Host], what: &str, fresh: bool) -> anyhow::Result<Vec<Row>> {
    sleep(REST);
    let times = || hosts.iter().map(|host| process::fine_processor_time(host.id())).collect::<anyhow::Result<Vec<_>>>();
    let (begun, before) = (Instant::now(), times()?);
    sleep(TIME);
    let (took, after) = (begun.elapsed(), times()?);
    let mut rows = Vec::new();
    for (((engine, host), before), after) in Engine::ALL.into_iter().zip(hosts).zip(before).zip(after) {
        let share = (after.saturating_sub(before)).as_secs_f64() / took.as_secs_f64() * 100.0;
        let memory = Row::new(
            format!("resident memory, {what}, 3 plugins, {}", engine.title()),
            "MiB",
            process::resident(host.id())?,
        );
        rows.push(if fresh { memory.within(Budget::AtMost(40.0)) } else { memory });
        rows.push(
            Row::new(format!("processor time, {what}, {}", engine.title()), "% of a core", share)
                .within(Budget::AtMost(0.2)),
        );
    }
    Ok(rows)
}
