//! What the sandbox costs who sends webhooks: attempts of the plugin, each in a fresh instance in the real host's engine,
//! against a native client that posts the same body, to the same receiver, with as many at once.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::guests::{self, Choice, PLUGINS, Wanted};
use crate::project::Project;
use crate::tools::{self, Progress};

/// Of each, in turn, so that a noisy minute hits both.
const ROUNDS: usize = 7;
const COUNT: usize = 20_000;
const AT_ONCE: [usize; 3] = [1, 16, 64];
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Of the data, which is what an order has and some more.
const PADDING_BYTES: usize = 700;

/// What `plugin test --json` prints, as far as it is of use here.
#[derive(Deserialize)]
struct Report {
    outcome: String,
    /// Of all attempts together.
    elapsed_us: u64,
}

/// The receiver, for as long as the bench runs.
struct Receiver {
    process: Child,
    port: u16,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended by itself, which the bench has seen then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs it and prints the ratios.
pub(crate) fn run(project: &Project, progress: &Progress) -> anyhow::Result<()> {
    progress.heading("build notify-host and bench-peer, optimised; the first time that takes several minutes");
    tools::run(project.cargo().args(["build", "--release", "--package", "notify-host", "--package", "bench-peer"]))?;
    guests::build(project, progress, Wanted::Plugins, Choice::Auto)?;
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&project.target)?;
    let folder = folder.path();
    let programs = project.release_programs();
    let receiver = receive(&programs.join("bench-peer"))?;
    let url = format!("http://127.0.0.1:{}/orders", receiver.port);
    write_files(project, folder, receiver.port)?;
    println!("requests per second, medians of {ROUNDS} rounds of {COUNT}");
    println!(
        "{:<10}{:>14}{:>12}{:>8}{:>14}{:>8}",
        "at once", "native client", "webhook", "ratio", "with signature", "ratio"
    );
    for at_once in AT_ONCE {
        progress.heading(format!("{at_once} at once: {ROUNDS} rounds of {COUNT}"));
        let (mut native, mut plain, mut signed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            native.push(post(&programs.join("bench-peer"), &url, at_once, &folder.join("event.json"))?);
            plain.push(attempt(&programs.join("notify-host"), folder, "plain.toml", at_once)?);
            signed.push(attempt(&programs.join("notify-host"), folder, "signed.toml", at_once)?);
        }
        let (native, plain, signed) = (median(native), median(plain), median(signed));
        println!(
            "{at_once:<10}{native:>14.0}{plain:>12.0}{:>8.2}{signed:>14.0}{:>8.2}",
            plain / native,
            signed / native
        );
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The plugin, its settings, and an event that is what it sends as well.
fn write_files(project: &Project, folder: &Path, port: u16) -> anyhow::Result<()> {
    guests::replace(&project.target.join(PLUGINS).join("webhook.wasm"), &folder.join("webhook.wasm"))?;
    let event = format!(
        r#"{{"specversion":"1.0","id":"1","source":"/shop","type":"OrderCreated","datacontenttype":"application/json","subject":"4711","data":{{"event":"OrderCreated","order_id":"4711","user_id":"user123","product":"iPhone 15","note":"{}"}}}}"#,
        "x".repeat(PADDING_BYTES)
    );
    fs::write(folder.join("event.json"), event)?;
    let toml = format!(
        "[grants]\nhttp = [\"http://127.0.0.1:{port}\"]\nnetworks = [\"127.0.0.0/8\"]\n\
         [secrets.signing]\nfile = \"secret\"\n[config]\nurl = \"http://127.0.0.1:{port}/orders\"\n"
    );
    fs::write(folder.join("secret"), SECRET)?;
    fs::write(folder.join("plain.toml"), &toml)?;
    fs::write(folder.join("signed.toml"), format!("{toml}sign = [\"signing\"]\n"))?;
    Ok(())
}

fn receive(peer: &Path) -> anyhow::Result<Receiver> {
    let mut process =
        Command::new(peer).arg("receive").stdout(Stdio::piped()).spawn().context("cannot start bench-peer")?;
    let stdout = process.stdout.take();
    let mut receiver = Receiver { process, port: 0 };
    let mut line = String::new();
    BufReader::new(stdout.context("bench-peer has no output")?).read_line(&mut line)?;
    receiver.port = line.trim().parse().context("bench-peer says no port")?;
    Ok(receiver)
}

/// Requests per second.
fn post(peer: &Path, url: &str, at_once: usize, body: &Path) -> anyhow::Result<f64> {
    let mut peer = Command::new(peer);
    peer.args(["post", url, &COUNT.to_string(), &at_once.to_string()]).arg(body);
    Ok(per_second(tools::capture(&mut peer)?.trim().parse().context("bench-peer says no time")?))
}

/// Attempts per second.
fn attempt(host: &Path, folder: &Path, toml: &str, at_once: usize) -> anyhow::Result<f64> {
    let mut command = Command::new(host);
    command.args(["plugin", "test", "--json", "--log-level", "error"]);
    command.args(["--repeat", &COUNT.to_string(), "--at-once", &at_once.to_string()]);
    command.arg(folder.join("webhook.wasm")).arg("--event").arg(folder.join("event.json"));
    command.arg("--toml").arg(folder.join(toml));
    command.env("XDG_CACHE_HOME", folder).env("XDG_STATE_HOME", folder).stderr(Stdio::inherit());
    let report: Report =
        serde_json::from_str(&tools::capture(&mut command)?).context("`plugin test` reports nothing")?;
    if report.outcome != "done" {
        bail!("the outcome is {}", report.outcome);
    }
    #[expect(clippy::cast_precision_loss, reason = "they are some seconds")]
    Ok(per_second(report.elapsed_us as f64 / 1e6))
}

#[expect(clippy::cast_precision_loss, reason = "they are some thousands")]
fn per_second(seconds: f64) -> f64 {
    COUNT as f64 / seconds
}
