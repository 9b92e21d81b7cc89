//! What the host, its plugins and order-cli are compared with, as a program of its own, so that it is optimised.
//!
//! Each command is the least that does the work at all, with the library that ours has as well: what it reaches is the
//! limit. It says on standard output how many seconds it took.

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

/// Runs one of the peers that `cargo xtask bench` compares with.
#[derive(Parser)]
#[command(name = "bench-peer")]
enum Command {
    /// Takes every HTTP request and looks at none; prints its port
    Receive,
    /// Posts a body again and again
    Post { url: String, count: usize, at_once: usize, body: PathBuf },
    /// Consumes a RabbitMQ queue, does nothing, and acknowledges cumulatively
    Consume {
        url: String,
        queue: String,
        prefetch: NonZeroU16,
        count: usize,
        /// Print instead when each was published and when it came, in microseconds since 1970
        #[arg(long)]
        times: bool,
    },
    /// Publishes order events to RabbitMQ, as fast as they are confirmed
    Publish {
        url: String,
        exchange: String,
        /// How many may wait for their confirmation
        window: usize,
        count: usize,
    },
    /// Publishes order events at a steady rate, by either engine, each of which says when it was published
    Tick {
        broker: String,
        exchange: String,
        count: u32,
        /// Events per second
        rate: u32,
    },
    /// Claims and removes what is in a queue of a SQLite file, in batches
    Drain { file: PathBuf, queue: String, count: usize },
    /// Takes messages apart as lapin does; prints the microseconds of one, without the broker crate's guard and with it
    Guard { count: usize },
    /// Parses an event and logs a line of it on standard error, again and again
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

/// Where a host works as well: the thread that only waits for the runtime is woken anew for whatever it waits for.
fn on_a_worker<T: Send + 'static>(work: impl Future<Output = anyhow::Result<T>> + Send + 'static) -> anyhow::Result<T> {
    Runtime::new()?.block_on(async { tokio::spawn(work).await? })
}
