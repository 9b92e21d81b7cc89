//! A demo of one order's path: order-cli, a queue, the host, the logger.
//!
//! It builds the real programs for this machine, with a temporary queue and plugin folder. The host ends with the
//! demo, however the demo ends.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use testbed::ChildGuard;

use crate::guests::{self, Choice, PLUGINS, Wanted};
use crate::project::Project;
use crate::tools::{self, Progress};

/// Maximum time until the host consumes. It usually takes a second, mostly for compiling the logger.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// Maximum time until the logger has written all orders. It usually takes some milliseconds.
const ORDERS_LIMIT: Duration = Duration::from_mins(1);
/// Maximum time until the host has stopped; longer than the host's own drain timeout.
const STOP_LIMIT: Duration = Duration::from_secs(40);
/// Interval between two reads of the host's log.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Runs the demo, and fails if an order did not arrive.
pub(crate) fn run(project: &Project, progress: &Progress) -> anyhow::Result<()> {
    progress.heading("build notify-host and order-cli");
    tools::run(project.cargo().args(["build", "--package", "notify-host", "--package", "order-cli"]))?;
    guests::build(project, progress, Wanted::Plugins, Choice::Auto)?;

    let folder = tempfile::Builder::new().prefix("demo-").tempdir_in(&project.target);
    let folder = folder.with_context(|| format!("cannot make a folder in {}", project.target.display()))?;
    let plugins = folder.path().join("plugins");
    plug_logger(project, &plugins)?;
    let queue = format!("sqlite:{}", folder.path().join("queue.db").display());

    // From here on there is something to clean up, which a signal must not prevent.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("cannot listen to signals")?;
    }

    progress.heading("notify-host run, with a queue in one file and the logger as its one plugin");
    let mut host = program(&project.programs(), "notify-host");
    host.args(["run", "--log-format", "human", "--broker", &queue]).arg("--plugins").arg(&plugins);
    host.arg("--state").arg(folder.path().join("state"));
    let mut host = Host { child_guard: ChildGuard::spawn(host), shown: 0, interrupted };
    if !host.wait_until(READY_LIMIT, says_ready)? {
        bail!("the host was not ready within {} s", READY_LIMIT.as_secs());
    }

    progress.heading("order-cli demo");
    let ids = tools::capture(
        program(&project.programs(), "order-cli").args(["--broker", &queue, "demo"]).stdin(Stdio::null()),
    )?;
    let ids: Vec<&str> = ids.lines().collect();
    if ids.is_empty() {
        bail!("order-cli published no order");
    }
    if !host.wait_until(ORDERS_LIMIT, |log| missing(log, &ids).is_empty())? {
        let missing = missing(&host.child_guard.stderr(), &ids).join(", ");
        bail!("the logger did not write within {} s about: {missing}", ORDERS_LIMIT.as_secs());
    }

    progress.heading("stop the host");
    host.stop()?;
    progress.heading(format!("done: {} orders, {} notifications", ids.len(), ids.len()));
    Ok(())
}

fn plug_logger(project: &Project, plugins: &Path) -> anyhow::Result<()> {
    fs::create_dir(plugins).with_context(|| format!("cannot make the folder {}", plugins.display()))?;
    let wasm = project.target.join(PLUGINS).join("logger.wasm");
    guests::replace(&wasm, &plugins.join("logger.wasm"))?;
    let template = project.root.join("plugins/logger/examples/tutorial.toml");
    guests::replace(&template, &plugins.join("logger.toml"))?;
    Ok(())
}

/// Returns one of our programs, without the user's own settings in its environment.
pub(crate) fn program(folder: &Path, name: &str) -> Command {
    let mut command = Command::new(folder.join(name));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NOTIFY_")) {
        command.env_remove(name);
    }
    command
}

fn says_ready(log: &str) -> bool {
    log.split(|character: char| !character.is_alphanumeric()).any(|word| word == "ready")
}

/// Returns the orders that the logger has not written. Its template writes an order as `#ID`, which distinguishes its
/// lines from the host's own.
fn missing<'a>(log: &str, ids: &[&'a str]) -> Vec<&'a str> {
    ids.iter().filter(|id| !log.contains(&format!("#{id}"))).copied().collect()
}

/// The running host, and how much of its log has been shown.
struct Host {
    child_guard: ChildGuard,
    shown: usize,
    interrupted: Arc<AtomicBool>,
}

impl Host {
    /// Waits for a text in its log, and shows the log as it grows. Returns `false` if the text did not come in time.
    fn wait_until(&mut self, limit: Duration, found: impl Fn(&str) -> bool) -> anyhow::Result<bool> {
        let started = Instant::now();
        loop {
            let ended = self.child_guard.wait_timeout(LOOK_INTERVAL);
            // Read after the wait, so that the last lines of an ended host are seen.
            let log = self.show();
            if found(&log) {
                return Ok(true);
            }
            if let Some(status) = ended {
                bail!("the host has ended by itself ({status})");
            }
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if started.elapsed() >= limit {
                return Ok(false);
            }
        }
    }

    /// Stops the host, which must exit successfully.
    fn stop(mut self) -> anyhow::Result<()> {
        self.child_guard.terminate();
        let status = self.child_guard.wait_timeout(STOP_LIMIT);
        self.show();
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the host was asked to stop and failed ({status})"),
            None => bail!("the host was asked to stop and did not within {} s", STOP_LIMIT.as_secs()),
        }
    }

    /// Writes the new complete lines of its log to stdout, and returns the whole log.
    fn show(&mut self) -> String {
        let log = self.child_guard.stderr();
        let end = log.rfind('\n').map_or(0, |end| end + 1);
        if let Some(new) = log.get(self.shown..end) {
            // A closed stdout must not make the demo fail.
            let _ = std::io::stdout().write_all(new.as_bytes());
            self.shown = end;
        }
        log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(script: &str) -> Host {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Host { child_guard: ChildGuard::spawn(command), shown: 0, interrupted: Arc::default() }
    }

    #[test]
    fn ready_is_a_word_of_its_own() {
        for (log, ready) in [("", false), ("INFO  ready: consuming\n", true), ("queue exists already\n", false)] {
            assert_eq!(says_ready(log), ready, "{log:?}");
        }
    }

    #[test]
    fn an_order_that_only_the_host_speaks_of_has_not_arrived() {
        let log = "[logger] Заказ #one от\nWARN order two is dead\n";
        assert_eq!(missing(log, &["one", "two", "three"]), ["two", "three"]);
    }

    #[test]
    fn a_host_that_ends_early_is_an_error_and_not_waited_for() {
        let mut host = host("echo last words >&2; exit 3");
        assert!(host.wait_until(READY_LIMIT, |log| log.contains("last words")).unwrap());
        let error = host.wait_until(READY_LIMIT, says_ready).unwrap_err().to_string();
        assert_eq!(error, "the host has ended by itself (exit status: 3)");
    }

    #[test]
    fn a_host_that_fails_to_stop_well_fails_the_demo() {
        let host = |code| host(&format!("trap 'exit {code}' TERM; echo ready >&2; while :; do sleep 0.02; done"));
        for (code, good) in [(0, true), (1, false)] {
            let mut host = host(code);
            assert!(host.wait_until(READY_LIMIT, says_ready).unwrap());
            assert_eq!(host.stop().is_ok(), good, "{code}");
        }
    }

    #[test]
    fn a_signal_ends_the_wait() {
        let mut host = host("sleep 1000");
        host.interrupted.store(true, Ordering::Relaxed);
        assert_eq!(host.wait_until(READY_LIMIT, says_ready).unwrap_err().to_string(), "interrupted");
    }
}
