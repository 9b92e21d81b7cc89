//! A bench measures side by side, in one run, and prints ratios: these say something on any machine, while the numbers
//! themselves do not.
//!
//! Each row of the table is measured in rounds in which ours and what it is compared with have their turns, so that a
//! noisy minute hits both. What ours is compared with is in `xtask/peer`. `docs/benchmarks.md` says how each row is meant.

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

use crate::bench::table::{Row, Verdict};
use crate::demo::program;
use crate::guests::{self, Choice, Wanted};
use crate::project::Project;
use crate::rabbitmq;
use crate::tools::{self, Progress};

/// As the host has it, unless it is told otherwise.
const PREFETCH: &str = "256";
/// So much less there is to do where a look is enough, or where nothing is optimised.
const QUICK_DIVISOR: usize = 10;
const UNOPTIMISED_DIVISOR: usize = 100;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which; without any, all
    #[arg(value_name = "NAME")]
    names: Vec<Name>,
    /// With programs that are not optimised, and a hundredth of the events: to see that it works
    #[arg(long)]
    unoptimised: bool,
    /// With a tenth of the events: for a first look
    #[arg(long)]
    quick: bool,
    /// Fail if a budget does not hold
    #[arg(long)]
    strict: bool,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Events per second out of RabbitMQ, with one plugin and with three
    Rabbitmq,
    /// Events per second out of a SQLite file
    Sqlite,
    /// What an attempt costs in its sandbox, compared with none
    Sandbox,
    /// What an event costs a plugin in each language, in a fresh instance
    Languages,
    /// How fast order-cli publishes
    Load,
    /// From publish to plugin, at a steady rate
    Latency,
    /// How the logger fares beside bad neighbours
    Isolation,
    /// What an event costs with many waiting
    Backlog,
    /// What an event costs with many plugins that do not want it
    Loaded,
    /// How long a start takes with twenty plugins
    Start,
    /// Memory and processor time of a host that has nothing to do
    Idle,
    /// What the journal costs, compared with none
    Journal,
    /// What the guard before lapin costs a message
    Guard,
    /// How many webhooks a second the plugin sends, compared with a native client
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

/// A run of benches.
struct Bench<'b> {
    project: &'b Project,
    progress: &'b Progress,
    /// The folder of ours and the peer.
    programs: PathBuf,
    divisor: usize,
    // Ends before its folder goes.
    node: OnceCell<Node>,
    folder: TempDir,
}

/// Runs those that are wanted and prints the table.
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
        // What the others cost in time is not lost with it.
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
    let failed = rows.iter().filter(|row| row.verdict() == Verdict::Fails).count();
    if failed > 0 && arguments.strict {
        bail!("{failed} of {} rows do not hold", rows.len());
    }
    Ok(())
}

/// Builds ours and the peer, and says where they are.
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

    /// Where all hosts keep what they have compiled.
    fn compiled(&self) -> PathBuf {
        self.folder().join("compiled")
    }

    /// The RabbitMQ that all share; started when first asked for.
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

    /// What ours is compared with.
    fn peer(&self, command: &str) -> Command {
        let mut peer = program(&self.programs, "bench-peer");
        peer.arg(command);
        peer
    }

    /// Less where a look is enough.
    fn count(&self, count: usize) -> usize {
        count / self.divisor
    }

    fn say(&self, text: impl std::fmt::Display) {
        self.progress.heading(text);
    }
}
