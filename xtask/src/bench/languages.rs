//! Measures the cost of an event in each language. It builds the projects of `plugin new` and attempts an event with
//! `plugin test` repeatedly, each time in a fresh instance, in the real host's engine.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;
use testbed::languages::{Language, Tools};

use crate::bench::Bench;
use crate::bench::table::Row;
use crate::languages;

/// Attempts of each plugin.
const ATTEMPTS: usize = 500;
const NAME: &str = "thanks";

/// The used fields of `plugin test --json`.
#[derive(Deserialize)]
struct LanguageReport {
    outcome: String,
    time: Times,
    memory_bytes: u64,
    load_ms: u64,
}

/// Times in microseconds.
#[derive(Deserialize)]
struct Times {
    #[serde(rename = "min_us")]
    min: u64,
    #[serde(rename = "median_us")]
    median: u64,
    #[serde(rename = "p99_us")]
    p99: u64,
}

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let tools = Tools::in_folder(languages::provide(bench.project, bench.progress)?);
    let (attempts, host) = (bench.count(ATTEMPTS), bench.programs.join("notify-host"));
    let mut rows = Vec::new();
    println!("one attempt in a fresh instance, {attempts} times; the load is the first, and from the cache");
    println!(
        "{:<27}{:>10}{:>9}{:>9}{:>11}{:>11}{:>11}{:>10}{:>11}",
        "language", "size", "load", "cached", "min", "median", "p99", "memory", "per second"
    );
    for (number, language) in Language::ALL.into_iter().enumerate() {
        bench.say(format!("{}: build, load, {attempts} attempts", language.title()));
        let own = bench.folder().join(format!("language-{number}"));
        fs::create_dir(&own)?;
        let wasm = tools.make(&host, language, NAME, &own).map_err(|error| anyhow!("{}: {error}", language.title()))?;
        let size = fs::metadata(&wasm)?.len();
        let event = own.join(NAME).join("event.json");
        // The cache is empty, so the first load compiles.
        let cache = own.join("cache");
        let (_, first) = test(&host, &wasm, &event, &cache, 1)?;
        let (report, _) = test(&host, &wasm, &event, &cache, attempts)?;
        #[expect(clippy::cast_precision_loss, reason = "they are some thousands")]
        let median = report.time.median.max(1) as f64;
        println!(
            "{:<27}{:>7} KB{:>6} ms{:>6} ms{:>8} µs{:>8} µs{:>8} µs{:>7} KB{:>11.0}",
            language.title(),
            size >> 10,
            first.as_millis(),
            report.load_ms,
            report.time.min,
            report.time.median,
            report.time.p99,
            report.memory_bytes >> 10,
            1e6 / median
        );
        rows.push(Row::new(format!("one attempt of `plugin new`'s {}", language.title()), "µs", median));
    }
    Ok(rows)
}

/// Returns the host's report and its running time.
fn test(
    host: &Path,
    wasm: &Path,
    event: &Path,
    cache: &Path,
    repeat: usize,
) -> anyhow::Result<(LanguageReport, Duration)> {
    let mut command = Command::new(host);
    command.args(["plugin", "test", "--json", "--log-level", "error", "--repeat", &repeat.to_string()]);
    command.arg(wasm).arg("--event").arg(event);
    command.env("XDG_CACHE_HOME", cache).env("XDG_STATE_HOME", cache).stderr(Stdio::inherit());
    let begun = Instant::now();
    let output = command.output().context("cannot start notify-host")?;
    let ran = begun.elapsed();
    let report: LanguageReport = serde_json::from_slice(&output.stdout).context("`plugin test` reports nothing")?;
    if report.outcome != "done" {
        bail!("{}: the outcome is {}", wasm.display(), report.outcome);
    }
    Ok((report, ran))
}
