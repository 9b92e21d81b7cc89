//! Benchmarks that measure side by side, in one run, and print ratios. Ratios are meaningful on any machine,
//! absolute numbers are not.
//!
//! Each row of the table is measured in rounds, in which ours and its peer take turns, so that a noisy minute affects
//! both. The peers are in `xtask/peer`. `docs/benchmarks.md` explains each row.

mod backlog;
mod guard;
mod idle;
mod journal;
mod languages;
mod latency;
mod load;
mod loaded;
mod log;
mod place;
mod report;
mod sandbox;
mod sqlite;
mod start;
mod statistics;
mod table;
mod throughput;
mod webhook;

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use tempfile::TempDir;
use testbed::rabbitmq::Node;

use crate::bench::table::{BudgetVerdict, Row};
use crate::demo::program;
use crate::guests::{self, Choice, Wanted};
use crate::project::Project;
use crate::rabbitmq;
use crate::tools::{self, Progress};

/// The host's default prefetch.
const PREFETCH: &str = "256";
/// Divisors of the number of events, for a quick run and for unoptimised programs.
const QUICK_DIVISOR: usize = 10;
const UNOPTIMISED_DIVISOR: usize = 100;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Benchmarks to run; all by default
    #[arg(value_name = "NAME")]
    names: Vec<Name>,
    /// Use unoptimised programs and a hundredth of the events, to check that the benchmarks themselves work
    #[arg(long)]
    unoptimised: bool,
    /// Use a tenth of the events, for a first impression
    #[arg(long)]
    quick: bool,
    /// Fail if a budget does not hold
    #[arg(long)]
    strict: bool,
}

/// The benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Events per second out of RabbitMQ, with one plugin and with three
    Rabbitmq,
    /// Events per second out of a SQLite file
    Sqlite,
    /// Cost of an attempt in its sandbox, compared with none
    Sandbox,
    /// Cost of an event in each plugin language, in a fresh instance
    Languages,
    /// Publishing rate of order-cli
    Load,
    /// Time from publisher to plugin, at a steady rate
    Latency,
    /// Latency of the logger beside bad neighbours
    Isolation,
    /// Cost of an event with a long backlog
    Backlog,
    /// Cost of an event with many plugins that do not want it
    Loaded,
    /// Time of a start with twenty plugins
    Start,
    /// Memory and CPU time of an idle host
    Idle,
    /// Cost of the journal, compared with none
    Journal,
    /// Cost of the guard before lapin, per message
    Guard,
    /// Webhooks per second, compared with a native client
    Webhook,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", PossibleValue::get_name))
    }
}

impl Name {
    fn measure(self, bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Rabbitmq => throughput::measure(bench),
            Self::Sqlite => sqlite::measure(bench),
            Self::Sandbox => sandbox::measure(bench),
            Self::Languages => languages::measure(bench),
            Self::Load => load::measure(bench),
            Self::Latency => latency::measure(bench),
            Self::Isolation => latency::measure_isolation(bench),
            Self::Backlog => backlog::measure(bench),
            Self::Loaded => loaded::measure(bench),
            Self::Start => start::measure(bench),
            Self::Idle => idle::measure(bench),
            Self::Journal => journal::measure(bench),
            Self::Guard => guard::measure(bench),
            Self::Webhook => webhook::measure(bench),
        }
    }
}

/// A run of benchmarks.
struct Bench<'b> {
    project: &'b Project,
    progress: &'b Progress,
    /// The folder of our programs and the peer.
    programs: PathBuf,
    divisor: usize,
    // Declared before the folder, so that the node stops before its folder is removed.
    node: OnceCell<Node>,
    folder: TempDir,
}

/// Runs the requested benchmarks and prints the table.
pub(crate) fn run(project: &Project, progress: &Progress, arguments: &Arguments) -> anyhow::Result<()> {
    let programs = build(project, progress, arguments.unoptimised)?;
    guests::build(project, progress, Wanted::Everything, Choice::Auto)?;
    let divisor = match (arguments.unoptimised, arguments.quick) {
        (true, _) => UNOPTIMISED_DIVISOR,
        (false, true) => QUICK_DIVISOR,
        (false, false) => 1,
    };
    let bench = Bench::new(project, progress, programs, divisor)?;
    let names = if arguments.names.is_empty() { Name::value_variants() } else { &arguments.names };
    let (mut rows, mut unmeasured) = (Vec::new(), Vec::new());
    for name in names {
        // Keep the results of the other benchmarks, which took a long time.
        match name.measure(&bench) {
            Ok(measured) => rows.extend(measured),
            Err(error) => {
                bench.say(format!("{name}: cannot be measured: {error:#}"));
                unmeasured.push(name.to_string());
            }
        }
    }
    println!("{}", table::text(&rows));
    if arguments.names.is_empty() && bench.divisor == 1 {
        report::write(project, &bench.rabbitmq_version(), &rows, &unmeasured)?;
        progress.heading(format!("the table is in {}", report::FILE));
    }
    if !unmeasured.is_empty() {
        bail!("could not be measured: {}", unmeasured.join(", "));
    }
    let failed = rows.iter().filter(|row| row.verdict() == BudgetVerdict::Fails).count();
    if failed > 0 && arguments.strict {
        bail!("{failed} of {} rows do not hold", rows.len());
    }
    Ok(())
}

/// Builds our programs and the peer, and returns their folder.
fn build(project: &Project, progress: &Progress, unoptimised: bool) -> anyhow::Result<PathBuf> {
    let mut build = project.cargo();
    build.args(["build", "--package", "notify-host", "--package", "order-cli", "--package", "bench-peer"]);
    if unoptimised {
        progress.heading("build notify-host, order-cli and bench-peer");
        tools::run(&mut build)?;
        return Ok(project.programs());
    }
    progress
        .heading("build notify-host, order-cli and bench-peer, optimised; the first time that takes several minutes");
    tools::run(build.arg("--release"))?;
    Ok(project.release_programs())
}

impl<'b> Bench<'b> {
    fn new(project: &'b Project, progress: &'b Progress, programs: PathBuf, divisor: usize) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&project.target)?;
        let bench = Self { project, progress, programs, divisor, node: OnceCell::new(), folder };
        fs::create_dir(bench.compiled())?;
        Ok(bench)
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the compile cache that all hosts share.
    fn compiled(&self) -> PathBuf {
        self.folder().join("compiled")
    }

    /// Returns the shared RabbitMQ node, started on first use.
    fn node(&self) -> anyhow::Result<&Node> {
        rabbitmq::provide(self.progress)?;
        Ok(self.node.get_or_init(|| {
            self.progress.heading("a RabbitMQ node of its own");
            Node::start()
        }))
    }

    fn rabbitmq_version(&self) -> String {
        self.node.get().map_or_else(|| "none".to_owned(), |node| node.ctl(&["version"]).trim().to_owned())
    }

    /// Returns a command of the peer.
    fn peer(&self, command: &str) -> Command {
        let mut peer = program(&self.programs, "bench-peer");
        peer.arg(command);
        peer
    }

    /// Scales a number of events down for a quick run.
    fn count(&self, count: usize) -> usize {
        count / self.divisor
    }

    fn say(&self, text: impl std::fmt::Display) {
        self.progress.heading(text);
    }
}
