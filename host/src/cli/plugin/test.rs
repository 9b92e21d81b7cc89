//! `notify-host plugin test`: attempts at one event, without a broker.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use config::BadConfig;
use config::HostConfig;
use contract::types::{Failure, Outcome};
use delivery::{because, verdict};
use event::text::shown;
use event::{Event, Look};
use sandbox::capability::{LogLine, Preview};
use sandbox::{Answer, Attempt, LoadError, Loader, Plugin, PluginFailure, Usage};
use serde_json::json;
use state::digest::Digest;
use telemetry::spans::Within;
use tokio::task::JoinSet;
use tracing::level_filters::LevelFilter;

use crate::cli::command::{say, unless_cut_off, write_json};
use crate::cli::plugin::sent::{SentMessage, write_html};
use crate::cli::plugin::{loader_with, name_of, plugin_config};
use crate::cli::sample::SampleArguments;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Plugin file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    sample: SampleArguments,
    /// Plugin toml [default: the one beside the plugin, if there is one]
    #[arg(long, value_name = "FILE")]
    toml: Option<PathBuf>,
    /// Number of attempts, ending with the first failure; the log and sent messages are shown for the first attempt
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,
    /// Number of concurrent attempts once the first has ended
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    at_once: u8,
    /// Show the log of every attempt
    #[arg(long)]
    all_logs: bool,
    /// Attempt number that the plugin is told
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    attempt: u32,
    /// Send nothing: each request gets status 200 with an empty body, and each mail counts as sent
    ///
    /// A missing secret gets a made-up value.
    #[arg(long)]
    dry_run: bool,
    /// File for the HTML of a mail; further mails get files beside it [default: the plugin's name with .html,
    /// in the current folder]
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Level of the plugin's log lines: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "NOTIFY_LOG_LEVEL")]
    pub(super) log_level: LevelFilter,
}

/// One event and plugin, attempted repeatedly.
struct Trial {
    plugin: Plugin,
    event: Event,
    attempt: Attempt,
    all_logs: bool,
    /// Number of attempts still to make.
    left: AtomicU32,
}

type TestAttempt = (Duration, Result<Answer, PluginFailure>, Usage, Vec<LogLine>);

impl Trial {
    async fn attempt(&self, shown: bool) -> TestAttempt {
        let begun = Instant::now();
        let (answer, usage, log) = self.plugin.rehearse(&self.event, self.attempt.clone(), shown).await;
        (begun.elapsed(), answer, usage, log)
    }

    /// Makes attempts one after the other until none is left or one fails. Several workers do so concurrently. `None`:
    /// this worker made none.
    async fn make_those_left(self: Arc<Self>) -> Option<(Vec<Duration>, Result<Answer, PluginFailure>, Usage)> {
        let (mut times, mut last) = (Vec::new(), None);
        let one_less = |left: u32| left.checked_sub(1);
        while self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            let (time, answer, usage, _) = self.attempt(self.all_logs).await;
            times.push(time);
            if !matches!(answer, Ok(Ok(_))) {
                self.left.store(0, Ordering::Relaxed);
            }
            last = Some((answer, usage));
        }
        last.map(|(answer, usage)| (times, answer, usage))
    }
}

/// The result of the test.
struct TestReport {
    outcome: &'static str,
    reason: Option<String>,
    is_success: bool,
    log: Vec<LogLine>,
    /// Messages sent by the first attempt.
    sent: Vec<SentMessage>,
    is_dry: bool,
    /// Resource usage of the last attempt.
    usage: Usage,
    load: Duration,
    /// Duration of each attempt, shortest first.
    times: Vec<Duration>,
    /// Duration of all attempts together.
    elapsed: Duration,
    memory_bytes_max: usize,
}

pub(super) async fn run(arguments: &Arguments, host: &HostConfig) -> anyhow::Result<()> {
    let event = arguments.sample.read(host)?;
    let toml = arguments.toml.clone().unwrap_or_else(|| arguments.file.with_extension("toml"));
    if arguments.toml.is_some() && !toml.exists() {
        return Err(BadConfig(format!("there is no file {}", toml.display())).into());
    }
    let config = plugin_config(&toml, host)?;
    let name = name_of(&arguments.file);
    let cannot = || format!("cannot load {}", arguments.file.display());
    let preview = Preview::new(arguments.dry_run);
    let loader = loader_with(host, Some(preview.clone()))?;
    let begun = Instant::now();
    let content = Loader::read(&arguments.file).with_context(cannot)?;
    let plugin = loader.load_content(&name, &content, Digest::of(&content), config).await;
    let plugin = plugin.map_err(|error| match error {
        LoadError::Settings(faults) => BadConfig(faults).into(),
        error => anyhow::Error::new(error).context(cannot()),
    })?;
    let load = begun.elapsed();
    let look = Look::new(&event);
    let verdict = verdict(&plugin, &look);
    if !verdict.is_wanted() {
        say!("in a host it would not get this event: {}", shown(&because(&plugin, &verdict)));
    }

    if arguments.dry_run {
        say!(
            "nothing is sent: each request is answered with status 200 and nothing in it, and each mail counts as sent"
        );
    }

    let mut report = TestReport::empty(&plugin, load, arguments.dry_run);
    let trial = Arc::new(Trial {
        attempt: Attempt {
            number: arguments.attempt,
            max: plugin.policies.retry.attempts_max.max(arguments.attempt),
            idempotency_key: event.idempotency_key(&name),
            transport: Vec::new(),
            within: Within::default(),
        },
        plugin,
        event,
        all_logs: arguments.all_logs,
        left: AtomicU32::new(arguments.repeat - 1),
    });
    let begun = Instant::now();
    let (time, answer, usage, log) = trial.attempt(true).await;
    report.add(vec![time], answer, usage);
    report.log = log;
    report.sent =
        preview.finish().into_iter().map(|one| SentMessage::new(one, |text| trial.plugin.redact(text))).collect();
    if report.is_success {
        // In tasks, as in a host: on this waiting thread each attempt would begin with a thread switch.
        let mut workers: JoinSet<_> = (0..arguments.at_once).map(|_| Arc::clone(&trial).make_those_left()).collect();
        while let Some(made) = workers.join_next().await {
            if let Some((times, answer, usage)) = made.context("an attempt ended badly")? {
                report.add(times, answer, usage);
            }
        }
    }
    report.elapsed = begun.elapsed();
    report.times.sort();
    let html = arguments.html.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.html")));
    let written = write_html(&mut report.sent, &html).context("cannot write the HTML of a mail")?;
    if written == 0 && arguments.html.is_some() {
        say!("no mail with HTML was sent, and {} not written", html.display());
    }
    unless_cut_off(report.print(arguments.json))?;
    if report.is_success {
        return Ok(());
    }
    match &report.reason {
        Some(reason) => bail!("{}: {}", report.outcome, shown(reason)),
        None => bail!("{}", report.outcome),
    }
}

impl TestReport {
    fn empty(plugin: &Plugin, load: Duration, is_dry: bool) -> Self {
        Self {
            outcome: "",
            reason: None,
            is_success: true,
            log: Vec::new(),
            sent: Vec::new(),
            is_dry,
            usage: Usage::default(),
            load,
            times: Vec::new(),
            elapsed: Duration::ZERO,
            memory_bytes_max: plugin.limits.memory_bytes,
        }
    }

    /// Adds the attempts of one worker, with the answer to its last one. A failure is kept.
    fn add(&mut self, times: Vec<Duration>, answer: Result<Answer, PluginFailure>, usage: Usage) {
        self.times.extend(times);
        if self.is_success {
            (self.outcome, self.reason) = words(answer);
            self.is_success = matches!(self.outcome, "done" | "skipped");
            self.usage = usage;
        }
    }

    /// Returns a percentile of the attempts' durations.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.times.len() * percent).div_ceil(100).max(1);
        self.times.get(rank - 1).copied().unwrap_or_default()
    }

    fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        if json {
            write_json(&mut out, &self.as_json())?;
            return out.flush();
        }
        for sent in &self.sent {
            sent.print(&mut out)?;
        }
        let mut line = |name: &str, value: &str| writeln!(out, "{name:<12}{}", shown(value));
        line("outcome", self.outcome)?;
        if let Some(reason) = &self.reason {
            line("reason", reason)?;
        }
        let first = self.percentile(0);
        match self.times.len() {
            1 => line("time", &in_units(first))?,
            count => {
                let (median, p99) = (self.percentile(50), self.percentile(99));
                line("attempts", &count.to_string())?;
                let all = [("min", first), ("median", median), ("p99", p99)];
                let all: Vec<_> = all.iter().map(|(name, time)| format!("{name} {}", in_units(*time))).collect();
                line("time", &all.join(", "))?;
            }
        }
        let size = |bytes: usize| bytesize::ByteSize(bytes as u64).display().iec().to_string();
        line("memory", &format!("{} of {}", size(self.usage.memory_bytes), size(self.memory_bytes_max)))?;
        let calls: Vec<_> = self.usage.calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
        line("host calls", if calls.is_empty() { "none".to_owned() } else { calls.join(", ") }.as_str())?;
        line("loaded in", &in_units(self.load))?;
        out.flush()
    }

    fn as_json(&self) -> serde_json::Value {
        let calls: BTreeMap<_, _> = self.usage.calls.iter().collect();
        let log = self.log.iter().map(|line| {
            let fields: serde_json::Map<_, _> =
                line.fields.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            json!({ "level": line.level, "message": line.message, "fields": fields })
        });
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        json!({
            "outcome": self.outcome,
            "reason": self.reason,
            "log": log.collect::<Vec<_>>(),
            "sent": self.sent.iter().map(SentMessage::as_json).collect::<Vec<_>>(),
            "dry_run": self.is_dry,
            "host_calls": calls,
            "memory_bytes": self.usage.memory_bytes,
            "load_ms": u64::try_from(self.load.as_millis()).unwrap_or(u64::MAX),
            "time": {
                "min_us": micros(self.percentile(0)),
                "median_us": micros(self.percentile(50)),
                "p99_us": micros(self.percentile(99)),
            },
            "attempts": self.times.len(),
            "elapsed_us": micros(self.elapsed),
        })
    }
}

/// Returns the outcome as a short, stable word, and its reason.
fn words(answer: Result<Answer, PluginFailure>) -> (&'static str, Option<String>) {
    match answer {
        Ok(Ok(Outcome::Done(note))) => ("done", note),
        Ok(Ok(Outcome::Skipped(reason))) => ("skipped", Some(reason)),
        Ok(Err(Failure::Retry(retry))) => {
            let after = retry.after.map(|millis| format!(" (not before {millis} ms have passed)"));
            ("retry", Some(format!("{}{}", retry.reason, after.unwrap_or_default())))
        }
        Ok(Err(Failure::Reject(rejection))) => ("reject", Some(format!("{} ({})", rejection.reason, rejection.code))),
        Ok(Err(Failure::Misconfigured(reason))) => ("misconfigured", Some(reason)),
        Err(failure) => (failure.code(), Some(failure.to_string())),
    }
}

fn in_units(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
