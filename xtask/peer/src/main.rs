//! The peers that the host, its plugins and order-cli are compared with. They are a program of their own, so
//! that they are optimised.
//!
//! Each command does the minimum for its task, with the library that ours uses, so its speed is the limit. It prints
//! the seconds that it took on standard output.

mod amqp;
mod event;
mod guard;
mod http;
mod parse;
mod sqlite;
mod tick;

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use tokio::runtime::Runtime;

/// Run one of the peers that `cargo xtask bench` compares with
#[derive(Parser)]
#[command(name = "bench-peer")]
enum Command {
    /// Accept every HTTP request unread; print the port
    Receive,
    /// Post a body repeatedly
    Post { url: String, count: usize, at_once: usize, body: PathBuf },
    /// Consume a RabbitMQ queue, discard the messages, and acknowledge cumulatively
    Consume {
        url: String,
        queue: String,
        prefetch: NonZeroU16,
        count: usize,
        /// Print the publishing and arrival time of each event instead, in microseconds since 1970
        #[arg(long)]
        times: bool,
    },
    /// Publish order events to RabbitMQ, as fast as they are confirmed
    Publish {
        url: String,
        exchange: String,
        /// Maximum number of unconfirmed events
        window: usize,
        count: usize,
    },
    /// Publish order events at a steady rate, by either engine; each contains its publishing time
    Tick {
        broker: String,
        exchange: String,
        count: u32,
        /// Events per second
        rate: u32,
    },
    /// Claim and remove the messages in a queue of a SQLite file, in batches
    Drain { file: PathBuf, queue: String, count: usize },
    /// Parse messages as lapin does; print the microseconds of one, without the broker crate's guard and with it
    Guard { count: usize },
    /// Parse an event and log a line of it on standard error, repeatedly
    Parse { event: PathBuf, count: usize, threads: usize },
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Receive => http::receive(),
        Command::Post { url, count, at_once, body } => {
            let body = std::fs::read(&body).with_context(|| format!("cannot read {}", body.display()))?;
            let runtime = Runtime::new()?;
            let began = Instant::now();
            runtime.block_on(http::post(&url, count, at_once, body.into()))?;
            println!("{}", began.elapsed().as_secs_f64());
            Ok(())
        }
        Command::Consume { url, queue, prefetch, count, times: false } => {
            let took = on_a_worker(async move { amqp::consume(&url, &queue, prefetch.get(), count).await })?;
            println!("{}", took.as_secs_f64());
            Ok(())
        }
        Command::Consume { url, queue, prefetch, count, times: true } => {
            for (sent, arrived) in on_a_worker(async move { amqp::times(&url, &queue, prefetch.get(), count).await })? {
                println!("{} {}", sent.as_micros(), arrived.as_micros());
            }
            Ok(())
        }
        Command::Publish { url, exchange, window, count } => {
            let took = on_a_worker(async move { amqp::publish(&url, &exchange, window, count).await })?;
            println!("{}", took.as_secs_f64());
            Ok(())
        }
        Command::Tick { broker, exchange, count, rate } => {
            on_a_worker(async move { tick::publish(&broker, &exchange, count, rate).await })
        }
        Command::Drain { file, queue, count } => {
            println!("{}", sqlite::drain(&file, &queue, count)?.as_secs_f64());
            Ok(())
        }
        Command::Guard { count } => {
            let (without, with) = guard::compare(count)?;
            println!("{without} {with}");
            Ok(())
        }
        Command::Parse { event, count, threads } => {
            let event = std::fs::read(&event).with_context(|| format!("cannot read {}", event.display()))?;
            println!("{}", parse::repeat(&event, count, threads)?.as_secs_f64());
            Ok(())
        }
    }
}

/// Runs the work on a worker thread, as the host does. The main thread would have to be woken for
/// each thing it waits for.
fn on_a_worker<T: Send + 'static>(work: impl Future<Output = anyhow::Result<T>> + Send + 'static) -> anyhow::Result<T> {
    Runtime::new()?.block_on(async { tokio::spawn(work).await? })
}
