//! The demo: the tutorial's two orders, from order-cli through a queue and the host to the logger.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::guests::{self, Choice, PLUGINS, Wanted};
use crate::project::Project;
use crate::tools::{self, Progress};

/// Compiling the logger takes a few seconds the first time.
const READY_LIMIT: Duration = Duration::from_mins(1);
const ORDER_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(40);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Builds what it needs and runs it. An error means that an order did not arrive.
pub(crate) fn run(project: &Project, progress: &Progress) -> anyhow::Result<()> {
    progress.heading("build notify-host and order-cli");
    tools::run(project.cargo().args(["build", "--package", "notify-host", "--package", "order-cli"]))?;
    guests::build(project, progress, Wanted::Plugins, Choice::Auto)?;

    let stage = Stage::set(project)?;
    progress.heading("start the host on an empty queue, with the logger as its one plugin");
    let mut host = Host::start(project, &stage)?;
    host.wait_for("ready: ", READY_LIMIT).context("the host did not become ready")?;

    progress.heading("publish the tutorial's two orders");
    let mut order_cli = Command::new(project.programs().join("order-cli"));
    let published = tools::capture(order_cli.arg("--broker").arg(&stage.broker).arg("demo"))?;
    let orders: Vec<_> = published.lines().collect();
    if orders.is_empty() {
        bail!("order-cli published nothing");
    }
    for order in &orders {
        host.wait_for(order, ORDER_LIMIT).with_context(|| format!("order {order} did not reach the logger"))?;
    }

    progress.heading("both orders were notified; stop the host");
    let status = host.stop()?;
    if !status.success() {
        bail!("the host did not stop in good order ({status})");
    }
    progress.heading("done");
    Ok(())
}

/// The folder of one demo.
struct Stage {
    folder: PathBuf,
    broker: String,
}

impl Stage {
    fn set(project: &Project) -> anyhow::Result<Self> {
        let folder = project.target.join("demo");
        // What is left of a demo that was interrupted.
        let _ = fs::remove_dir_all(&folder);
        let plugins = folder.join("plugins");
        fs::create_dir_all(&plugins).with_context(|| format!("cannot make the folder {}", plugins.display()))?;
        let copy = |from: &Path, name: &str| guests::replace(from, &plugins.join(name));
        copy(&project.target.join(PLUGINS).join("logger.wasm"), "logger.wasm")?;
        copy(&project.root.join("plugins/logger/examples/tutorial.toml"), "logger.toml")?;
        let broker = format!("sqlite:{}", folder.join("queue.db").display());
        Ok(Self { folder, broker })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The next demo tries again.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The running host. It is killed if the demo ends without stopping it.
struct Host {
    child: Child,
    /// What it logs, as it comes; shown as well.
    lines: Receiver<String>,
    log: String,
}

impl Host {
    fn start(project: &Project, stage: &Stage) -> anyhow::Result<Self> {
        let mut child = Command::new(project.programs().join("notify-host"))
            .args(["run", "--broker", &stage.broker, "--plugins"])
            .arg(stage.folder.join("plugins"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start notify-host")?;
        let stderr = child.stderr.take().context("the host has no standard error")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("  {line}");
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, log: String::new() })
    }

    /// Waits until the log holds this text.
    fn wait_for(&mut self, text: &str, limit: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + limit;
        while !self.log.contains(text) {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.log.push_str(&line);
                    self.log.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => bail!("not within {} s", limit.as_secs()),
                Err(RecvTimeoutError::Disconnected) => bail!("the host ended"),
            }
        }
        Ok(())
    }

    fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).context("cannot signal the host")?;
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > STOP_LIMIT {
                bail!("the host did not stop within {} s", STOP_LIMIT.as_secs());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
