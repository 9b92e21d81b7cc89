//! A bench measures side by side, in one run, and prints ratios: these say something on any
//! machine, while the numbers themselves do not.
//!
//! Isolation: how the logger fares beside a plugin that hangs on every event and one that fails on
//! every event, compared with how it fares alone.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use testbed::Leash;

use crate::demo::program;
use crate::guests::{self, Choice, GUESTS, PLUGINS, Wanted};
use crate::project::Project;
use crate::tools::{self, Progress};

/// Of each kind, in turn, so that a noisy minute hits both.
const ROUNDS: usize = 3;
const EVENTS: usize = 2000;
/// Well below what two cores can do, so that the wait is not the queue's.
const RATE: usize = 200;
const READY_LIMIT: Duration = Duration::from_mins(1);
const EVENTS_LIMIT: Duration = Duration::from_mins(2);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A plugin that hangs is left alone when ten calls of it have passed their limit of one second.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// Below that a wait is nothing.
const WAIT_MIN: Duration = Duration::from_micros(100);

/// What the bad neighbours do, and their settings.
const NEIGHBOURS: [(&str, &str); 2] =
    [("hangs", "[limits]\ntime = \"1s\"\n[config]\nact = \"loop\"\n"), ("fails", "[config]\nact = \"retry\"\n")];

/// One run of the logger. Waits are from the confirmation to the line in the log.
struct Run {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    /// Of what was published once the neighbours were known for what they are.
    settled_p99: Duration,
}

type Measure = (&'static str, fn(&Run) -> f64);

const MEASURES: [Measure; 4] = [
    ("events per second", |run| run.per_second),
    ("p50, ms", |run| millis(run.p50)),
    ("p99, ms", |run| millis(run.p99)),
    ("p99 from second 3 on, ms", |run| millis(run.settled_p99)),
];

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Runs it and prints the ratios.
pub(crate) fn run(project: &Project, progress: &Progress) -> anyhow::Result<()> {
    progress.heading("build notify-host and order-cli, optimised; the first time that takes several minutes");
    tools::run(project.cargo().args(["build", "--release", "--package", "notify-host", "--package", "order-cli"]))?;
    guests::build(project, progress, Wanted::Everything, Choice::Auto)?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        progress.heading(format!("isolation, round {round} of {ROUNDS}: {EVENTS} events, {RATE} per second"));
        alone.push(measure(project, false)?);
        beside.push(measure(project, true)?);
    }
    println!("the logger, medians of {ROUNDS} rounds");
    println!("{:<42}{:>10}{:>10}{:>8}", "beside one that hangs and one that fails", "alone", "beside", "ratio");
    for (what, of) in MEASURES {
        let (alone, beside) = (median(&alone, of), median(&beside, of));
        println!("{what:<42}{alone:>10.2}{beside:>10.2}{:>8.2}", beside / alone);
    }
    Ok(())
}

fn median(runs: &[Run], of: fn(&Run) -> f64) -> f64 {
    median_of(runs.iter().map(of))
}

/// Of at least one.
pub(crate) fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(project: &Project, neighbours: bool) -> anyhow::Result<Run> {
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&project.target)?;
    let plugins = folder.path().join("plugins");
    fs::create_dir(&plugins)?;
    guests::replace(&project.target.join(PLUGINS).join("logger.wasm"), &plugins.join("logger.wasm"))?;
    fs::write(plugins.join("logger.toml"), "[config]\nformat = \"json\"\n")?;
    for (name, toml) in NEIGHBOURS.iter().filter(|_| neighbours) {
        let guest = project.target.join(GUESTS).join("misbehaver.wasm");
        guests::replace(&guest, &plugins.join(format!("{name}.wasm")))?;
        fs::write(plugins.join(format!("{name}.toml")), toml)?;
    }
    let queue = format!("sqlite:{}", folder.path().join("queue.db").display());
    let host = start_host(project, &queue, &plugins)?;
    let mut load = program(&project.release_programs(), "order-cli");
    load.args(["--broker", &queue, "load", "--ids", "--mix", "created=100"]);
    load.args(["--count", &EVENTS.to_string(), "--rate", &RATE.to_string()]);
    let published = publish(load)?;
    let started = Instant::now();
    loop {
        let handled = handled(&host.stderr());
        if handled.len() >= published.len() {
            return Ok(evaluate(&published, &handled));
        }
        if started.elapsed() > EVENTS_LIMIT {
            let log = host.stderr();
            let log: Vec<_> = log.lines().rev().take(5).collect();
            bail!("the logger had {} of {} events in time:\n{}", handled.len(), published.len(), log.join("\n"));
        }
        if let Some(status) = host.wait_timeout(LOOK_INTERVAL) {
            bail!("the host has ended by itself ({status}):\n{}", host.stderr().lines().last().unwrap_or_default());
        }
    }
}

fn start_host(project: &Project, queue: &str, plugins: &Path) -> anyhow::Result<Leash> {
    let mut host = program(&project.release_programs(), "notify-host");
    host.args(["run", "--log-format", "json", "--broker", queue]).arg("--plugins").arg(plugins);
    host.arg("--state").arg(plugins.with_file_name("state"));
    let host = Leash::spawn(host);
    let started = Instant::now();
    while !host.stderr().contains("ready: ") {
        if started.elapsed() > READY_LIMIT || host.wait_timeout(LOOK_INTERVAL).is_some() {
            bail!("the host does not get ready:\n{}", host.stderr());
        }
    }
    Ok(host)
}

/// When each order was confirmed.
fn publish(mut load: Command) -> anyhow::Result<HashMap<String, Timestamp>> {
    let mut load = load.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("cannot start order-cli")?;
    let stdout = load.stdout.take().context("order-cli has no output")?;
    let lines = BufReader::new(stdout).lines();
    let published = lines.map(|line| Ok((line?, Timestamp::now()))).collect::<std::io::Result<Vec<_>>>()?;
    if !load.wait()?.success() {
        bail!("order-cli failed");
    }
    // The summary at the end is no order's id.
    Ok(published.into_iter().filter(|(line, _)| !line.contains(' ') && !line.is_empty()).collect())
}

/// When the logger wrote of each order, by the host's log.
pub(crate) fn handled(log: &str) -> HashMap<String, Timestamp> {
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let event: serde_json::Value = serde_json::from_str(line["message"].as_str()?).ok()?;
        Some((event["data"]["order_id"].as_str()?.to_owned(), line["timestamp"].as_str()?.parse().ok()?))
    };
    log.lines().filter_map(line).collect()
}

fn evaluate(published: &HashMap<String, Timestamp>, handled: &HashMap<String, Timestamp>) -> Run {
    let first = published.values().min().copied().unwrap_or_default();
    // What is handled before its publisher hears of the confirmation took no time.
    let since =
        |earlier: Timestamp, later: Timestamp| Duration::try_from(later.duration_since(earlier)).unwrap_or_default();
    let waits = |from: Duration| {
        let published = published.iter().filter(|(_, at)| since(first, **at) >= from);
        let mut waits: Vec<_> = published.filter_map(|(id, at)| Some(since(*at, *handled.get(id)?))).collect();
        waits.sort();
        waits
    };
    let at = |waits: &[Duration], percent: usize| {
        waits.get(waits.len() * percent / 100).copied().unwrap_or_default().max(WAIT_MIN)
    };
    let (all, settled) = (waits(Duration::ZERO), waits(SETTLED_AFTER));
    let span = handled.values().max().map_or(Duration::ZERO, |last| since(first, *last));
    #[expect(clippy::cast_precision_loss, reason = "they are some thousands")]
    let per_second = handled.len() as f64 / span.as_secs_f64();
    Run { per_second, p50: at(&all, 50), p99: at(&all, 99), settled_p99: at(&settled, 99) }
}
