//! The work without a sandbox: parse an event and log a line of it, as the logger does.

use std::io::{self, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use serde_json::Value;

/// Does the work `count` times, on this many threads together.
pub(crate) fn repeat(event: &[u8], count: usize, threads: usize) -> anyhow::Result<Duration> {
    let began = Instant::now();
    thread::scope(|scope| {
        let each = |_| {
            scope.spawn(|| -> anyhow::Result<()> {
                for _ in 0..count / threads {
                    handle(event)?;
                }
                Ok(())
            })
        };
        let threads: Vec<_> = (0..threads).map(each).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(began.elapsed())
}

/// Writes the line that the host writes for a logger in JSON format, in one unbuffered write.
fn handle(event: &[u8]) -> anyhow::Result<()> {
    let event: Value = serde_json::from_slice(event).context("the event is no JSON")?;
    let line = format!("{:.3} INFO  [logger] {event}\n", Timestamp::now());
    io::stderr().lock().write_all(line.as_bytes())?;
    Ok(())
}
