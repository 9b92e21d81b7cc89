//! Measures the cost of the sandbox for webhooks. Attempts of the plugin, each in a fresh instance in the real host's
//! engine, compete with a native client that posts the same body to the same receiver, with as many requests at once.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use crate::bench::Bench;
use crate::bench::place::{ratio, seconds_of_peer};
use crate::bench::sandbox::{AttemptsReport, event};
use crate::bench::statistics::median;
use crate::bench::table::{Budget, Row};
use crate::guests::{self, PLUGINS};
use crate::tools;

const ROUNDS: usize = 3;
const COUNT: usize = 20_000;
const AT_ONCE: [usize; 3] = [1, 16, 64];
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The receiver, which runs as long as the benchmark.
struct Receiver {
    process: Child,
    port: u16,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // If it has ended by itself, the benchmark has already noticed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let folder = bench.folder().join("webhook");
    fs::create_dir(&folder)?;
    let (host, count) = (bench.programs.join("notify-host"), bench.count(COUNT));
    let receiver = receive(bench.peer("receive"))?;
    let url = format!("http://127.0.0.1:{}/orders", receiver.port);
    write_files(bench, &folder, receiver.port)?;
    let mut rows = Vec::new();
    for at_once in AT_ONCE {
        bench.say(format!("webhooks, {at_once} at once: {ROUNDS} rounds of {count}"));
        let (mut native, mut plain, mut signed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let mut peer = bench.peer("post");
            peer.args([&*url, &count.to_string(), &at_once.to_string()]).arg(folder.join("event.json"));
            native.push(ratio(count, seconds_of_peer(peer)?));
            plain.push(attempt(&host, &folder, "plain.toml", count, at_once)?);
            signed.push(attempt(&host, &folder, "signed.toml", count, at_once)?);
        }
        let native = median(native);
        rows.push(
            Row::new(format!("webhooks, {at_once} at once"), "/s", median(plain))
                .against("native hyper client", native)
                .within(Budget::RatioAtLeast(0.8)),
        );
        rows.push(
            Row::new(format!("webhooks, {at_once} at once, signed"), "/s", median(signed))
                .against("native hyper client", native),
        );
    }
    Ok(rows)
}

/// Writes the plugin, its settings, and an event, which is also the body it sends.
fn write_files(bench: &Bench<'_>, folder: &Path, port: u16) -> anyhow::Result<()> {
    guests::replace(&bench.project.target.join(PLUGINS).join("webhook.wasm"), &folder.join("webhook.wasm"))?;
    fs::write(folder.join("event.json"), event())?;
    let toml = format!(
        "[grants]\nhttp = [\"http://127.0.0.1:{port}\"]\nnetworks = [\"127.0.0.0/8\"]\n\
         [secrets.signing]\nfile = \"secret\"\n[config]\nurl = \"http://127.0.0.1:{port}/orders\"\n"
    );
    fs::write(folder.join("secret"), SECRET)?;
    fs::write(folder.join("plain.toml"), &toml)?;
    fs::write(folder.join("signed.toml"), format!("{toml}sign = [\"signing\"]\n"))?;
    Ok(())
}

fn receive(mut peer: Command) -> anyhow::Result<Receiver> {
    let mut process = peer.stdout(Stdio::piped()).spawn().context("cannot start bench-peer")?;
    let stdout = process.stdout.take();
    let mut receiver = Receiver { process, port: 0 };
    let mut line = String::new();
    BufReader::new(stdout.context("bench-peer has no output")?).read_line(&mut line)?;
    receiver.port = line.trim().parse().context("bench-peer says no port")?;
    Ok(receiver)
}

/// Returns the attempts per second.
fn attempt(host: &Path, folder: &Path, toml: &str, count: usize, at_once: usize) -> anyhow::Result<f64> {
    let mut command = Command::new(host);
    command.args(["plugin", "test", "--json", "--log-level", "error"]);
    command.args(["--repeat", &count.to_string(), "--at-once", &at_once.to_string()]);
    command.arg(folder.join("webhook.wasm")).arg("--event").arg(folder.join("event.json"));
    command.arg("--toml").arg(folder.join(toml));
    command.env("XDG_CACHE_HOME", folder).env("XDG_STATE_HOME", folder).stderr(Stdio::inherit());
    let report = AttemptsReport::read(&tools::capture(&mut command)?)?;
    #[expect(clippy::cast_precision_loss, reason = "they are some seconds")]
    Ok(ratio(count, report.elapsed_us as f64 / 1e6))
}
