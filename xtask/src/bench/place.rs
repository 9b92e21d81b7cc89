//! An environment to measure in: a temporary folder with plugins, a queue of its own and a host.

use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use testbed::ChildGuard;

use crate::bench::Bench;
use crate::bench::log::{LineCount, LogFile};
use crate::bench::table::Row;
use crate::demo::program;
use crate::guests::{self, GUESTS, PLUGINS};
use crate::process;

/// Time limit for the start. Compiling plugins takes minutes with unoptimised programs on a busy machine.
const READY_LIMIT: Duration = Duration::from_mins(5);
const STOP_LIMIT: Duration = Duration::from_mins(1);
const READY_INTERVAL: Duration = Duration::from_millis(2);
/// Quiet time of the log after which the host has finished its work.
pub(super) const REST_TIME: Duration = Duration::from_millis(150);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Quiet time of the log after which the host is stuck.
const STUCK_LIMIT: Duration = Duration::from_mins(1);

/// Subscription of a plugin that must stay idle: no such event is published.
pub(super) const NEVER: &str = "[[subscriptions]]\nevent-type = \"Never\"\n";

/// Settings of a logger that writes each event as a line of JSON.
pub(super) const JSON_LINES: &str = "[config]\nformat = \"json\"\n";

/// The broker engine of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    RabbitMq,
    Sqlite,
}

impl Engine {
    pub(super) const ALL: [Self; 2] = [Self::RabbitMq, Self::Sqlite];

    /// Returns the rows of both engines.
    pub(super) fn both(of_engine: impl Fn(Self) -> anyhow::Result<Vec<Row>>) -> anyhow::Result<Vec<Row>> {
        Ok(Self::ALL.into_iter().map(of_engine).collect::<Result<Vec<_>, _>>()?.concat())
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::RabbitMq => "RabbitMQ",
            Self::Sqlite => "SQLite",
        }
    }
}

/// A measuring environment. Queue and exchange have unique names, so that several can share a RabbitMQ node.
pub(super) struct BenchEnvironment<'b> {
    bench: &'b Bench<'b>,
    engine: Engine,
    folder: TempDir,
    pub(super) broker: String,
    pub(super) exchange: String,
    pub(super) queue: String,
}

/// Measured performance of a host during part of its work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// Events per second, from the first handled event to the last.
    pub(super) per_second: f64,
    /// CPU time of the host for one event, in microseconds.
    pub(super) processor_micros: f64,
    /// Resident memory of the host at the end, in MiB.
    pub(super) resident: f64,
}

impl Stretch {
    pub(super) fn new(events: usize, seconds: f64, processor: Duration, resident: f64) -> Self {
        let processor_micros = processor.as_secs_f64() * 1e6 / as_float(events);
        Self { per_second: ratio(events, seconds), processor_micros, resident }
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, processor_micros, resident } = self;
        write!(f, "{per_second:.0} /s, {processor_micros:.1} µs of processor time an event, {resident:.1} MiB")
    }
}

impl<'b> BenchEnvironment<'b> {
    /// Creates the environment. `toml` contains further settings of the host.
    pub(super) fn new(bench: &'b Bench<'b>, engine: Engine, toml: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("place-").tempdir_in(bench.folder())?;
        let name = folder.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let broker = match engine {
            Engine::RabbitMq => bench.node()?.url(),
            Engine::Sqlite => format!("sqlite:{}", folder.path().join("queue.db").display()),
        };
        let (exchange, queue) = (format!("{name}.orders"), format!("{name}.notifications"));
        fs::create_dir(folder.path().join("plugins"))?;
        fs::create_dir(folder.path().join("state"))?;
        // Hosts share the compile cache, or compiling would dominate their work.
        symlink(bench.compiled(), folder.path().join("state/compiled"))?;
        let settings = format!(
            "broker = {broker:?}\nplugins = \"plugins\"\nstate = \"state\"\n{toml}\n\
             [source]\nexchange = {exchange:?}\nqueue = {queue:?}\n"
        );
        fs::write(folder.path().join("host.toml"), settings)?;
        Ok(Self { bench, engine, folder, broker, exchange, queue })
    }

    /// Plugs the logger under this name. It writes each event as a line of JSON.
    pub(super) fn plug_logger(&self, name: &str) -> anyhow::Result<()> {
        self.plug(name, PLUGINS, "logger", JSON_LINES)
    }

    /// Plugs a logger whose file differs for each number.
    pub(super) fn plug_variant(&self, number: u8, toml: &str) -> anyhow::Result<()> {
        let logger = fs::read(self.bench.project.target.join(PLUGINS).join("logger.wasm"))?;
        // A custom section makes the file unique, also for each engine.
        let variant = [&logger[..], &[0, 4, 1, b'v', number, self.engine as u8]].concat();
        let file = self.folder.path().join("plugins").join(format!("logger-{number}.wasm"));
        fs::write(file.with_extension("toml"), toml)?;
        Ok(fs::write(file, variant)?)
    }

    /// Plugs a badly behaved plugin.
    pub(super) fn plug_misbehaver(&self, name: &str, toml: &str) -> anyhow::Result<()> {
        self.plug(name, GUESTS, "misbehaver", toml)
    }

    pub(super) fn plug(&self, name: &str, from: &str, wasm: &str, toml: &str) -> anyhow::Result<()> {
        let file = self.folder.path().join("plugins").join(name).with_extension("wasm");
        fs::write(file.with_extension("toml"), toml)?;
        guests::replace(&self.bench.project.target.join(from).join(wasm).with_extension("wasm"), &file)?;
        Ok(())
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn host(&self, arguments: &[&str]) -> Command {
        let mut host = program(&self.bench.programs, "notify-host");
        host.args(arguments).arg("--config").arg(self.file("host.toml"));
        host
    }

    pub(super) fn apply_topology(&self) -> anyhow::Result<()> {
        run_to_end(self.host(&["topology", "apply"])).map(drop)
    }

    pub(super) fn order_cli(&self) -> Command {
        let mut order_cli = program(&self.bench.programs, "order-cli");
        order_cli.args(["--broker", &self.broker, "--exchange", &self.exchange]);
        order_cli
    }

    /// Puts this many order events of about 200 bytes into the queue.
    pub(super) fn fill(&self, count: usize) -> anyhow::Result<()> {
        let mut load = self.order_cli();
        load.args(["--quiet", "--timeout", "60", "load", "--mix", "created=100", "--window", "1000"]);
        load.args(["--count", &count.to_string()]);
        run_to_end(load).map(drop)
    }

    /// Starts a host and waits until it is ready.
    pub(super) fn start(&self, arguments: &[&str]) -> anyhow::Result<Host> {
        Host::start(self.host(&[&["run"], arguments].concat()))
    }

    /// Measures a host that works off this many events, each wanted by `plugins` plugins.
    pub(super) fn work_off(&self, count: usize, plugins: usize) -> anyhow::Result<Stretch> {
        self.fill(count)?;
        let mut host = self.start(&[])?;
        let before = host.processor_at_ready;
        let tally = host.wait_for_lines(count * plugins, REST_TIME)?;
        let (after, resident) = (process::processor_time(host.id())?, process::resident(host.id())?);
        host.stop()?;
        Ok(Stretch::new(count, tally.seconds(), after.saturating_sub(before), resident))
    }
}

/// A running host, with its log.
pub(super) struct Host {
    child_guard: ChildGuard,
    log: LogFile,
    /// Number of plugins' lines read so far.
    handled: usize,
    /// Time from its start until it was ready.
    pub(super) start: Duration,
    pub(super) processor_at_ready: Duration,
}

impl Host {
    fn start(command: Command) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let child_guard = ChildGuard::spawn(command);
        let mut log = LogFile::new(child_guard.stderr_file());
        while !log.new_lines()?.iter().any(|line| line.contains("ready: ")) {
            if begun.elapsed() > READY_LIMIT || child_guard.wait_timeout(READY_INTERVAL).is_some() {
                bail!("the host does not get ready:\n{}", child_guard.stderr());
            }
        }
        let start = begun.elapsed();
        let processor_at_ready = process::processor_time(child_guard.id())?;
        // Lines that plugins have written in the meantime count.
        let log = LogFile::new(child_guard.stderr_file());
        Ok(Self { child_guard, log, handled: 0, start, processor_at_ready })
    }

    pub(super) fn id(&self) -> u32 {
        self.child_guard.id()
    }

    /// Waits until plugins have written this many more lines. Reads the log only after it has not grown for `rest`.
    pub(super) fn wait_for_lines(&mut self, count: usize, rest: Duration) -> anyhow::Result<LineCount> {
        let mut tally = LineCount::default();
        while tally.count < count {
            self.wait_for_rest(rest)?;
            let before = tally.count;
            self.take_lines(&mut tally)?;
            if tally.count == before {
                bail!("the plugins wrote {} of {count} lines:\n{}", tally.count, self.last_lines());
            }
        }
        Ok(tally)
    }

    /// Collects this many values from new lines, as parsed by `read`.
    pub(super) fn wait_for<T>(&mut self, count: usize, read: fn(&str) -> Option<T>) -> anyhow::Result<Vec<T>> {
        let mut found = Vec::new();
        while found.len() < count {
            self.wait_for_rest(REST_TIME)?;
            let before = found.len();
            found.extend(self.log.new_lines()?.iter().filter_map(|line| read(line)));
            if found.len() == before {
                bail!("the plugins wrote {before} of {count} lines:\n{}", self.last_lines());
            }
        }
        Ok(found)
    }

    /// Measures `count` events, after the host has handled `warm_up` events of the same backlog.
    pub(super) fn measure(&mut self, warm_up: usize, count: usize) -> anyhow::Result<Stretch> {
        let mut tally = LineCount::default();
        while tally.count < warm_up {
            self.wait_to_grow(self.log.size()? + 1)?;
            self.take_lines(&mut tally)?;
        }
        let before = process::fine_processor_time(self.id())?;
        let mut tally = LineCount::default();
        self.take_lines(&mut tally)?;
        // Estimate the number of lines by the size of the log, because reading it constantly would disturb the host.
        let line = self.log.size()? / u64::try_from(self.handled.max(1))?;
        self.wait_to_grow(self.log.size()? + line * u64::try_from(count)?)?;
        let mut tally = LineCount::default();
        let (after, resident) = (process::fine_processor_time(self.id())?, process::resident(self.id())?);
        self.take_lines(&mut tally)?;
        Ok(Stretch::new(tally.count, tally.seconds(), after.saturating_sub(before), resident))
    }

    fn take_lines(&mut self, tally: &mut LineCount) -> anyhow::Result<()> {
        let before = tally.count;
        tally.add(&self.log.new_lines()?);
        self.handled += tally.count - before;
        Ok(())
    }

    fn wait_to_grow(&self, size: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.log.size()? < size {
            self.wait(READY_INTERVAL)?;
            if begun.elapsed() > STUCK_LIMIT {
                let (has, last) = (self.log.size()?, self.last_lines());
                bail!("the plugins wrote {} lines, and then {has} bytes of {size}:\n{last}", self.handled);
            }
        }
        Ok(())
    }

    /// Waits until the log has grown and then stayed the same for `rest`, or has not grown at all for a long time.
    fn wait_for_rest(&self, rest: Duration) -> anyhow::Result<()> {
        let (mut size, mut grown) = (self.log.size()?, None);
        let begun = Instant::now();
        loop {
            self.wait(rest.min(LOOK_INTERVAL))?;
            let now = self.log.size()?;
            if now != size {
                (size, grown) = (now, Some(Instant::now()));
            }
            let has_new = grown.is_some() || now > self.log.read();
            if has_new && grown.unwrap_or(begun).elapsed() >= rest || begun.elapsed() > STUCK_LIMIT {
                return Ok(());
            }
        }
    }

    fn last_lines(&self) -> String {
        const LINES: usize = 5;
        let log = self.child_guard.stderr();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    pub(super) fn wait(&self, time: Duration) -> anyhow::Result<()> {
        match self.child_guard.wait_timeout(time) {
            None => Ok(()),
            Some(status) => bail!("the host has ended by itself ({status}):\n{}", self.last_lines()),
        }
    }

    /// Stops the host like [`Self::stop`], and returns how many events it has handled in total.
    pub(super) fn stop_and_count(mut self) -> anyhow::Result<usize> {
        self.end()?;
        self.take_lines(&mut LineCount::default())?;
        Ok(self.handled)
    }

    /// Stops the host cleanly, so that everything is acknowledged.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&self) -> anyhow::Result<()> {
        self.child_guard.terminate();
        match self.child_guard.wait_timeout(STOP_LIMIT) {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the host was asked to stop and failed ({status}):\n{}", self.last_lines()),
            None => bail!("the host was asked to stop and did not within {} s", STOP_LIMIT.as_secs()),
        }
    }
}

/// Runs a command to its end, and returns its standard output.
pub(super) fn run_to_end(command: Command) -> anyhow::Result<String> {
    const LIMIT: Duration = Duration::from_mins(5);
    let name = command.get_program().to_string_lossy().into_owned();
    let peer = ChildGuard::spawn(command);
    match peer.wait_timeout(LIMIT) {
        Some(status) if status.success() => Ok(peer.stdout()),
        Some(status) => {
            let log = peer.stderr();
            bail!("{name} failed ({status}): {}", log.lines().last().unwrap_or_default())
        }
        None => bail!("{name} did not end within {} s", LIMIT.as_secs()),
    }
}

/// Runs a peer, and returns the seconds that it reports.
pub(super) fn seconds_of_peer(command: Command) -> anyhow::Result<f64> {
    run_to_end(command)?.trim().parse().context("the peer does not say how long it took")
}

pub(super) fn ratio(count: usize, seconds: f64) -> f64 {
    as_float(count) / seconds
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^52")]
fn as_float(count: usize) -> f64 {
    count as f64
}
