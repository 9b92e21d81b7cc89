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

/// What the bad neighbours do, and their settings.
const NEIGHBOURS: [(&str, &str); 2] =
    [("hangs", "[limits]\ntime = \"1s\"\n[config]\nact = \"loop\"\n"), ("fails", "[config]\nact = \"retry\"\n")];

/// One run of the logger.
struct Run {
    per_second: f64,
    p99: Duration,
}

/// Runs it and prints the ratios.
pub(crate) fn run(project: &Project, progress: &Progress) -> anyhow::Result<()> {
    progress.heading("build notify-host and order-cli");
    tools::run(project.cargo().args(["build", "--package", "notify-host", "--package", "order-cli"]))?;
    guests::build(project, progress, Wanted::Everything, Choice::Auto)?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        progress.heading(format!("isolation, round {round} of {ROUNDS}: {EVENTS} events, {RATE} per second"));
        alone.push(measure(project, false)?);
        beside.push(measure(project, true)?);
    }
    println!("the logger, medians of {ROUNDS} rounds");
    println!("{:<34}{:>12}{:>14}", "", "events/s", "p99");
    let (alone, beside) = (median(alone), median(beside));
    for (what, run) in [("alone", &alone), ("beside one that hangs, one that fails", &beside)] {
        println!("{what:<38}{:>8.1}{:>11.1} ms", run.per_second, run.p99.as_secs_f64() * 1000.0);
    }
    let p99 = beside.p99.as_secs_f64() / alone.p99.as_secs_f64();
    println!("{:<38}{:>8.2}{p99:>14.2}", "ratio", beside.per_second / alone.per_second);
    Ok(())
}

/// Of each number by itself.
fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let per_second = runs[runs.len() / 2].per_second;
    runs.sort_by_key(|run| run.p99);
    Run { per_second, p99: runs[runs.len() / 2].p99 }
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
    let mut load = program(project, "order-cli");
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
    let mut host = program(project, "notify-host");
    host.args(["run", "--log-format", "json", "--broker", queue]).arg("--plugins").arg(plugins);
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
fn handled(log: &str) -> HashMap<String, Timestamp> {
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let event: serde_json::Value = serde_json::from_str(line["message"].as_str()?).ok()?;
        Some((event["data"]["order_id"].as_str()?.to_owned(), line["timestamp"].as_str()?.parse().ok()?))
    };
    log.lines().filter_map(line).collect()
}

fn evaluate(published: &HashMap<String, Timestamp>, handled: &HashMap<String, Timestamp>) -> Run {
    // What is handled before its publisher hears of the confirmation took no time.
    let mut waits: Vec<_> = published
        .iter()
        .filter_map(|(id, at)| Some(Duration::try_from(handled.get(id)?.duration_since(*at)).unwrap_or_default()))
        .collect();
    waits.sort();
    let p99 = waits.get(waits.len() * 99 / 100).copied().unwrap_or_default().max(Duration::from_micros(100));
    let span = published
        .values()
        .min()
        .zip(handled.values().max())
        .map_or(0.0, |(first, last)| last.duration_since(*first).as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "they are some thousands")]
    Run { per_second: handled.len() as f64 / span, p99 }
}
