//! What an event costs in each language: the projects of `plugin new`, built, and attempted by `plugin
//! test` again and again, each time in a fresh instance, in the real host's engine.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;
use testbed::languages::{Language, Tools};

use crate::languages;
use crate::project::Project;
use crate::tools::{self, Progress};

/// Attempts of each plugin.
const ATTEMPTS: usize = 500;
const NAME: &str = "thanks";

/// What `plugin test --json` prints, as far as it is of use here.
#[derive(Deserialize)]
struct Report {
    outcome: String,
    time: Times,
    memory_bytes: u64,
    load_ms: u64,
}

/// Microseconds.
#[derive(Deserialize)]
struct Times {
    #[serde(rename = "min_us")]
    min: u64,
    #[serde(rename = "median_us")]
    median: u64,
    #[serde(rename = "p99_us")]
    p99: u64,
}

/// Builds, measures, and prints the table.
pub(crate) fn run(project: &Project, progress: &Progress, unoptimised: bool) -> anyhow::Result<()> {
    let tools = Tools::in_folder(languages::provide(project, progress)?);
    let mut build = project.cargo();
    build.args(["build", "--package", "notify-host"]);
    let programs = if unoptimised {
        progress.heading("build notify-host");
        project.programs()
    } else {
        progress.heading("build notify-host, optimised; the first time that takes several minutes");
        build.arg("--release");
        project.release_programs()
    };
    tools::run(&mut build)?;
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&project.target)?;
    println!("one attempt in a fresh instance, {ATTEMPTS} times; the load is the first, and from the cache");
    println!(
        "{:<27}{:>10}{:>9}{:>9}{:>11}{:>11}{:>11}{:>10}{:>11}",
        "language", "size", "load", "cached", "min", "median", "p99", "memory", "per second"
    );
    for (number, language) in Language::ALL.into_iter().enumerate() {
        progress.heading(format!("{}: build, load, {ATTEMPTS} attempts", language.title()));
        let own = folder.path().join(number.to_string());
        fs::create_dir(&own)?;
        let host = programs.join("notify-host");
        let wasm = tools.make(&host, language, NAME, &own).map_err(|error| anyhow!("{}: {error}", language.title()))?;
        let size = fs::metadata(&wasm)?.len();
        let event = own.join(NAME).join("event.json");
        // Nobody has compiled it before where the cache is empty.
        let cache = own.join("cache");
        let (_, first) = test(&host, &wasm, &event, &cache, 1)?;
        let (report, _) = test(&host, &wasm, &event, &cache, ATTEMPTS)?;
        #[expect(clippy::cast_precision_loss, reason = "they are some thousands")]
        let per_second = 1e6 / report.time.median.max(1) as f64;
        println!(
            "{:<27}{:>7} KB{:>6} ms{:>6} ms{:>8} µs{:>8} µs{:>8} µs{:>7} KB{per_second:>11.0}",
            language.title(),
            size >> 10,
            first.as_millis(),
            report.load_ms,
            report.time.min,
            report.time.median,
            report.time.p99,
            report.memory_bytes >> 10,
        );
    }
    Ok(())
}

/// What the host reports, and how long it ran.
fn test(host: &Path, wasm: &Path, event: &Path, cache: &Path, repeat: usize) -> anyhow::Result<(Report, Duration)> {
    let mut command = Command::new(host);
    command.args(["plugin", "test", "--json", "--log-level", "error", "--repeat", &repeat.to_string()]);
    command.arg(wasm).arg("--event").arg(event);
    command.env("XDG_CACHE_HOME", cache).env("XDG_STATE_HOME", cache).stderr(Stdio::inherit());
    let begun = Instant::now();
    let output = command.output().context("cannot start notify-host")?;
    let ran = begun.elapsed();
    let report: Report = serde_json::from_slice(&output.stdout).context("`plugin test` reports nothing")?;
    if report.outcome != "done" {
        bail!("{}: the outcome is {}", wasm.display(), report.outcome);
    }
    Ok((report, ran))
}
