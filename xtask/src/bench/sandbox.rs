//! Measures the cost of the sandbox: an attempt of the logger in a fresh instance, compared with the
//! same work without one.
//!
//! Both parse an event of 1 KB and write the same line to a file, in one unbuffered write.

use std::fs;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::bench::Bench;
use crate::bench::place::{run_to_end, seconds_of_peer};
use crate::bench::statistics::median;
use crate::bench::table::{Budget, Row};
use crate::demo::program;
use crate::guests::{self, PLUGINS};

const ROUNDS: usize = 5;
const ATTEMPTS: usize = 100_000;
const EVENT_BYTES: usize = 1000;
/// Concurrent attempts per thread, so that a thread always finds one.
const AT_ONCE: usize = 2;

/// The used fields of `plugin test --json`.
#[derive(Deserialize)]
pub(super) struct AttemptsReport {
    pub(super) outcome: String,
    /// Time of all attempts together, in microseconds.
    pub(super) elapsed_us: u64,
}

impl AttemptsReport {
    pub(super) fn read(text: &str) -> anyhow::Result<Self> {
        let report: Self = serde_json::from_str(text).context("`plugin test` reports nothing")?;
        ensure!(report.outcome == "done", "the outcome is {}", report.outcome);
        Ok(report)
    }
}

pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let folder = bench.folder().join("sandbox");
    fs::create_dir(&folder)?;
    guests::replace(&bench.project.target.join(PLUGINS).join("logger.wasm"), &folder.join("logger.wasm"))?;
    fs::write(folder.join("logger.toml"), "[config]\nformat = \"json\"\n")?;
    fs::write(folder.join("event.json"), event())?;
    let attempts = bench.count(ATTEMPTS);
    let native = |threads: usize| {
        let mut peer = bench.peer("parse");
        peer.arg(folder.join("event.json")).args([&attempts.to_string(), &threads.to_string()]);
        anyhow::Ok(micros(seconds_of_peer(peer)?, attempts))
    };
    let ours = |threads: usize| {
        let mut host = program(&bench.programs, "notify-host");
        host.args(["plugin", "test", "--json", "--all-logs", "--repeat", &attempts.to_string()]);
        host.args(["--at-once", &(threads * AT_ONCE).to_string()]).arg(folder.join("logger.wasm"));
        host.arg("--event").arg(folder.join("event.json"));
        host.env("XDG_CACHE_HOME", &folder).env("XDG_STATE_HOME", &folder);
        host.env("TOKIO_WORKER_THREADS", threads.to_string());
        #[expect(clippy::cast_precision_loss, reason = "they are some seconds")]
        let seconds = AttemptsReport::read(&run_to_end(host)?)?.elapsed_us as f64 / 1e6;
        anyhow::Ok(micros(seconds, attempts))
    };
    let (mut native_1, mut native_2, mut ours_1, mut ours_2) = (vec![], vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        native_1.push(native(1)?);
        ours_1.push(ours(1)?);
        native_2.push(native(2)?);
        ours_2.push(ours(2)?);
        bench.say(format!(
            "sandbox, round {round} of {ROUNDS}: native {:.1} µs, logger {:.1} µs; on two threads {:.1} and {:.1} µs",
            native_1[round - 1],
            ours_1[round - 1],
            native_2[round - 1],
            ours_2[round - 1]
        ));
    }
    let (native_1, native_2, ours_1, ours_2) = (median(native_1), median(native_2), median(ours_1), median(ours_2));
    Ok(vec![
        Row::new("an attempt of the logger, 1 KB, fresh instance", "µs", ours_1)
            .against("native parse and the same line", native_1)
            .within(Budget::MoreAtMost(8.0)),
        Row::new("attempts on two threads", "/s", 1e6 / ours_2)
            .against("on one", 1e6 / ours_1)
            .within(Budget::RatioAtLeast(1.8)),
        Row::new("native on two threads", "/s", 1e6 / native_2).against("on one", 1e6 / native_1),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "they are some thousands")]
fn micros(seconds: f64, count: usize) -> f64 {
    seconds * 1e6 / count as f64
}

/// Returns an event in structured CloudEvents JSON.
pub(super) fn event() -> String {
    let event = |note: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"1","source":"/shop","type":"OrderCreated","datacontenttype":"application/json","subject":"4711","data":{{"event":"OrderCreated","order_id":"4711","user_id":"user123","product":"iPhone 15","note":"{note}"}}}}"#
        )
    };
    event(&"x".repeat(EVENT_BYTES - event("").len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_has_a_kilobyte() {
        let event = event();
        assert_eq!(event.len(), EVENT_BYTES);
        assert!(serde_json::from_str::<serde_json::Value>(&event).is_ok());
    }
}
