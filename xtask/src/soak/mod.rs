//! A soak: a host works for a long time under mixed load, faults and hot swaps. At the end, memory, handles and
//! threads must not have grown, and every event must be accounted for.
//!
//! The soak is bounded by its time and its rate.

mod account;
mod faults;
mod load;
mod plugins;
mod sample;
mod scrape;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use testbed::rabbitmq::{Node, let_new_queues_settle};
use testbed::{ChildGuard, free_port};

use crate::demo::program;
use crate::guests::{self, Choice, Wanted};
use crate::project::Project;
use crate::rabbitmq;
use crate::soak::account::Account;
use crate::soak::faults::{Faults, Outlet};
use crate::soak::load::{Load, Published};
use crate::soak::plugins::Plugins;
use crate::soak::sample::{ResourceSample, judge};
use crate::soak::scrape::scrape;
use crate::tools::{self, Progress};

const MINUTES_MAX: u64 = 24 * 60;
const RATE_MAX: u64 = 1000;
/// Minimum minutes for judging growth. In a shorter soak, the one-time memory for the first burst after a broker
/// restart looks like growth.
const JUDGED_FROM_MINUTES: u64 = 10;
/// Time limit for the start. Compiling plugins takes minutes with unoptimised programs on a busy machine.
const READY_LIMIT: Duration = Duration::from_mins(5);
const STOP_LIMIT: Duration = Duration::from_mins(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const SAMPLE_INTERVAL: Duration = Duration::from_secs(3);
/// Maximum rows of the printed table.
const ROWS_MAX: u64 = 60;
/// Time limit in which every waiting event must get its next attempt.
const DRAIN_LIMIT: Duration = Duration::from_mins(5);
const DRAIN_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Minutes of load; fewer than ten are too short to judge growth
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=MINUTES_MAX))]
    minutes: u64,
    /// Events per second
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: u64,
    /// Use unoptimised programs, to check that the soak itself works
    #[arg(long)]
    unoptimised: bool,
}

/// Paths and addresses of a soak.
struct SoakEnvironment {
    programs: PathBuf,
    folder: PathBuf,
    broker: String,
    /// Port of the host's admin server.
    admin_port: u16,
}

impl SoakEnvironment {
    fn plugins(&self) -> PathBuf {
        self.folder.join("plugins")
    }

    /// Returns notify-host with this soak's settings.
    fn host(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = program(&self.programs, "notify-host");
        command.args(arguments).arg("--config").arg(self.folder.join("host.toml"));
        command
    }
}

/// Runs the soak, and prints the table and the verdict.
pub(crate) fn run(project: &Project, progress: &Progress, arguments: &Arguments) -> anyhow::Result<()> {
    rabbitmq::provide(progress)?;
    progress.heading("build notify-host and order-cli");
    let mut build = project.cargo();
    build.args(["build", "--package", "notify-host", "--package", "order-cli"]);
    let programs = if arguments.unoptimised { project.programs() } else { project.release_programs() };
    tools::run(if arguments.unoptimised { &mut build } else { build.arg("--release") })?;
    guests::build(project, progress, Wanted::Everything, Choice::Auto)?;
    // From here on there is something to clean up, which a signal must not prevent.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("cannot listen to signals")?;
    }
    progress.heading("a RabbitMQ node of its own");
    let node = Node::start();
    let folder = tempfile::Builder::new().prefix("soak-").tempdir_in(&project.target)?;
    let place =
        SoakEnvironment { programs, folder: folder.path().to_owned(), broker: node.url(), admin_port: free_port() };
    let outlet = Outlet::open();
    let plugins = Plugins::put(project, &place.plugins(), outlet.port())?;
    let host = start_host(&place)?;
    let_new_queues_settle();
    progress.heading(format!("{} events per second for {} min", arguments.rate, arguments.minutes));
    let time = Duration::from_secs(arguments.minutes * 60);
    let (published, samples) = soak(
        &Soak {
            place: &place,
            node: &node,
            outlet: &outlet,
            plugins: &plugins,
            host: &host,
            interrupted: &interrupted,
        },
        arguments.rate,
        time,
    )?;
    progress.heading(format!("{} events are confirmed; what waits is waited for", published.len()));
    plugins.mend()?;
    outlet.mend();
    let account = drain(&place, &published, &host, &interrupted)?;
    host.terminate();
    let stopped = host.wait_timeout(STOP_LIMIT);
    println!("{account}");
    let verdicts = judge(&samples);
    for verdict in &verdicts {
        println!("{verdict}");
    }
    match stopped {
        Some(status) if status.success() => {}
        Some(status) => bail!("the host was asked to stop and failed ({status})"),
        None => bail!("the host was asked to stop and did not within {} s", STOP_LIMIT.as_secs()),
    }
    if !account.is_whole() {
        bail!("not every event is accounted for");
    }
    if arguments.minutes < JUDGED_FROM_MINUTES {
        println!("every event is accounted for; less than {JUDGED_FROM_MINUTES} min are too short to judge what grows");
        return Ok(());
    }
    if verdicts.is_empty() || verdicts.iter().any(|verdict| !verdict.is_flat()) {
        bail!("what the host uses is not flat");
    }
    println!("flat, and every event is accounted for");
    Ok(())
}

fn start_host(place: &SoakEnvironment) -> anyhow::Result<ChildGuard> {
    let toml = format!(
        "broker = {:?}\nplugins = \"plugins\"\nstate = \"state\"\nadmin = \"127.0.0.1:{}\"\nduplicates-window = \"1m\"\n",
        place.broker, place.admin_port
    );
    fs::write(place.folder.join("host.toml"), toml)?;
    let host = ChildGuard::spawn(place.host(&["run", "--log-format", "json"]));
    let started = Instant::now();
    while !host.stderr().contains("ready: ") {
        if started.elapsed() > READY_LIMIT || host.wait_timeout(LOOK_INTERVAL).is_some() {
            bail!("the host does not get ready:\n{}", host.stderr());
        }
    }
    Ok(host)
}

/// The parts that run side by side.
struct Soak<'s> {
    place: &'s SoakEnvironment,
    node: &'s Node,
    outlet: &'s Outlet,
    plugins: &'s Plugins,
    host: &'s ChildGuard,
    interrupted: &'s AtomicBool,
}

fn soak(soak: &Soak<'_>, rate: u64, time: Duration) -> anyhow::Result<(Vec<Published>, Vec<ResourceSample>)> {
    let (stop, faults) = (AtomicBool::new(false), Faults::new(soak.node, soak.outlet, time));
    thread::scope(|scope| {
        let load = scope.spawn(|| Load { place: soak.place, rate }.run(&stop));
        let breaking = scope.spawn(|| faults.run(&stop));
        let swapping = scope.spawn(|| soak.plugins.swap_until(&stop));
        let watched = watch(soak, &faults, time);
        stop.store(true, Ordering::Relaxed);
        let ended = "a part of the soak failed";
        let swaps = swapping.join().map_err(|_| anyhow::anyhow!(ended))??;
        breaking.join().map_err(|_| anyhow::anyhow!(ended))?;
        let published = load.join().map_err(|_| anyhow::anyhow!(ended))??;
        let samples = watched?;
        println!(
            "{} broker restarts, {} times of a bad receiver, {swaps} hot swaps",
            faults.restarts(),
            faults.bad_times()
        );
        Ok((published, samples))
    })
}

/// Samples until the time is over, and prints a row at intervals.
fn watch(soak: &Soak<'_>, faults: &Faults<'_>, time: Duration) -> anyhow::Result<Vec<ResourceSample>> {
    let (started, mut samples) = (Instant::now(), Vec::new());
    let row_interval = (time / u32::try_from(ROWS_MAX).unwrap_or(u32::MAX)).max(SAMPLE_INTERVAL);
    let mut next_row = Duration::ZERO;
    println!("{}", ResourceSample::HEADINGS);
    while started.elapsed() < time {
        let sample = ResourceSample::of(soak.host.id(), started.elapsed())?;
        if started.elapsed() >= next_row {
            println!("{sample}  {}", faults.now());
            next_row += row_interval;
        }
        samples.push(sample);
        // Scrape the metrics, as monitoring would.
        scrape(soak.place.admin_port)?;
        if let Some(status) = soak.host.wait_timeout(SAMPLE_INTERVAL) {
            bail!("the host has ended by itself ({status}):\n{}", last_lines(&soak.host.stderr()));
        }
        if soak.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
    }
    Ok(samples)
}

fn last_lines(log: &str) -> String {
    const LINES: usize = 10;
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Waits until each event is done or a dead letter at each plugin, up to the limit.
fn drain(
    place: &SoakEnvironment,
    published: &[Published],
    host: &ChildGuard,
    interrupted: &AtomicBool,
) -> anyhow::Result<Account> {
    let started = Instant::now();
    loop {
        let account = Account::draw(place, published)?;
        if account.is_whole() || started.elapsed() >= DRAIN_LIMIT {
            return Ok(account);
        }
        if let Some(status) = host.wait_timeout(DRAIN_INTERVAL) {
            bail!("the host has ended by itself ({status})");
        }
        if interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
    }
}

/// Waits for this time, or until told to stop. Returns whether it was told to stop.
fn pause(time: Duration, stop: &AtomicBool) -> bool {
    let started = Instant::now();
    while started.elapsed() < time {
        if stop.load(Ordering::Relaxed) {
            return true;
        }
        thread::sleep(LOOK_INTERVAL.min(time));
    }
    stop.load(Ordering::Relaxed)
}

/// Returns a command's output, parsed line by line as JSON.
fn json_lines(command: &mut std::process::Command) -> anyhow::Result<Vec<serde_json::Value>> {
    let text = tools::capture(command)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("what is {line:?}?"))).collect()
}

/// Returns the path of a plugin's file.
fn wasm(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.wasm"))
}
