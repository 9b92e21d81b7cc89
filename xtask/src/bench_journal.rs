//! What the journal costs: a host works off the same queue of events with it and without it.
//!
//! Its processor time says more than the clock does where others work on the machine, too; the journal's own thread is in
//! it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use testbed::Leash;

use crate::bench::{handled, median_of};
use crate::demo::program;
use crate::guests::{self, Choice, PLUGINS, Wanted};
use crate::project::Project;
use crate::tools::{self, Progress};

/// Of each kind, in turn, so that a noisy minute hits both.
const ROUNDS: usize = 5;
const EVENTS: usize = 10_000;
const EVENTS_LIMIT: Duration = Duration::from_mins(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

struct Run {
    per_second: f64,
    processor_micros: f64,
}

type Measure = (&'static str, fn(&Run) -> f64);

const MEASURES: [Measure; 2] =
    [("events per second", |run| run.per_second), ("processor time of an event, µs", |run| run.processor_micros)];

/// Runs it and prints the ratios.
pub(crate) fn run(project: &Project, progress: &Progress, unoptimised: bool) -> anyhow::Result<()> {
    progress.heading("build notify-host and order-cli");
    let mut build = project.cargo();
    build.args(["build", "--package", "notify-host", "--package", "order-cli"]);
    tools::run(if unoptimised { &mut build } else { build.arg("--release") })?;
    let programs = if unoptimised { project.programs() } else { project.release_programs() };
    guests::build(project, progress, Wanted::Plugins, Choice::Auto)?;
    // All hosts share what is compiled: that would be most of what they do.
    let compiled = tempfile::Builder::new().prefix("bench-").tempdir_in(&project.target)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    measure(project, &programs, compiled.path(), true)?;
    for round in 1..=ROUNDS {
        progress.heading(format!("round {round} of {ROUNDS}: {EVENTS} events"));
        without.push(measure(project, &programs, compiled.path(), false)?);
        with.push(measure(project, &programs, compiled.path(), true)?);
    }
    println!("the logger alone, medians of {ROUNDS} rounds of {EVENTS} events");
    println!("{:<42}{:>10}{:>10}{:>8}", "with a journal", "off", "on", "ratio");
    for (what, of) in MEASURES {
        let (without, with) = (median_of(without.iter().map(of)), median_of(with.iter().map(of)));
        println!("{what:<42}{without:>10.1}{with:>10.1}{:>8.3}", with / without);
    }
    Ok(())
}

fn measure(project: &Project, programs: &Path, compiled: &Path, journal: bool) -> anyhow::Result<Run> {
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&project.target)?;
    let folder = folder.path();
    let plugins = folder.join("plugins");
    fs::create_dir(&plugins)?;
    guests::replace(&project.target.join(PLUGINS).join("logger.wasm"), &plugins.join("logger.wasm"))?;
    fs::write(plugins.join("logger.toml"), "[config]\nformat = \"json\"\n")?;
    fs::create_dir(folder.join("state"))?;
    symlink(compiled, folder.join("state/compiled"))?;
    let queue = format!("sqlite:{}", folder.join("queue.db").display());
    let toml = format!(
        "broker = {queue:?}\nplugins = \"plugins\"\nstate = \"state\"\nadmin = \"off\"\n[journal]\nenabled = {journal}\n"
    );
    fs::write(folder.join("host.toml"), toml)?;
    let host = |arguments: &[&str]| {
        let mut host = program(programs, "notify-host");
        host.args(arguments).arg("--config").arg(folder.join("host.toml"));
        host
    };
    tools::capture(&mut host(&["topology", "apply"]))?;
    let mut load = program(programs, "order-cli");
    load.args(["--broker", &queue, "load", "--quiet", "--mix", "created=100", "--count", &EVENTS.to_string()]);
    tools::capture(&mut load)?;
    let host = Leash::spawn(host(&["run", "--log-format", "json"]));
    let started = Instant::now();
    loop {
        if let Some(status) = host.wait_timeout(LOOK_INTERVAL) {
            bail!("the host has ended by itself ({status}):\n{}", host.stderr().lines().last().unwrap_or_default());
        }
        let log = host.stderr();
        if log.matches("\"plugin\":\"logger\"").count() >= EVENTS {
            // The journal has written the last of it by then.
            std::thread::sleep(LOOK_INTERVAL * 3);
            return evaluate(&handled(&log).into_values().collect::<Vec<_>>(), processor_time(host.id())?);
        }
        if started.elapsed() > EVENTS_LIMIT {
            bail!("the logger had not all events in time");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "they are some thousands")]
fn evaluate(handled: &[Timestamp], processor_time: Duration) -> anyhow::Result<Run> {
    let (first, last) = handled.iter().min().zip(handled.iter().max()).context("the logger wrote nothing")?;
    let time = Duration::try_from(last.duration_since(*first)).unwrap_or_default();
    Ok(Run {
        per_second: EVENTS as f64 / time.as_secs_f64(),
        processor_micros: processor_time.as_secs_f64() * 1e6 / EVENTS as f64,
    })
}

/// Of the process itself, its start included.
fn processor_time(process: u32) -> anyhow::Result<Duration> {
    // Of this system's clock ticks, which have been so long on every Linux for decades.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("cannot look at the host in /proc")?;
    // Behind the name, which may have anything in it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks = fields.skip(11).take(2).map(|field| field.parse::<u32>().unwrap_or_default()).sum::<u32>();
    Ok(TICK * ticks)
}
