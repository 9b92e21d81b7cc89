//! Publishes many orders, as fast as they are confirmed or at a steady rate.
//!
//! A load ends at the first message that is not confirmed, because a measurement with gaps would mean nothing. Without
//! `--exchange` it uses an exchange and a queue of its own.

mod mix;
mod own_queue;
mod report;
mod shop;

use std::future::{self, Future};
use std::pin::pin;
use std::time::{Duration, Instant};

use fake::rand;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(crate) use self::mix::Mix;
use self::own_queue::{Fate, LOOK_EVERY, OwnQueue};
use self::report::Measurement;
use self::shop::Shop;
use crate::exit::Failure;
use crate::output::{Format, Output, Published};
use crate::publish::{Publisher, order_message};

/// The parameters of a load.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Number of events.
    pub(crate) count: u64,
    /// Events per second. `None` means as fast as they are confirmed.
    pub(crate) rate: Option<f64>,
    /// Relative frequency of each status.
    pub(crate) mix: Mix,
    /// Seed of the generator. The same seed makes the same orders.
    pub(crate) seed: Option<u64>,
    /// Maximum number of unconfirmed events.
    pub(crate) window: usize,
    /// Whether to print the id of each order.
    pub(crate) ids: bool,
    /// Whether the load goes to [`OWN_EXCHANGE`](crate::own_exchange::OWN_EXCHANGE).
    pub(crate) own_queue: bool,
}

/// Publishes the load, stopping early at an interruption, and prints the measurements.
pub(crate) async fn run(
    publisher: &Publisher,
    output: &mut Output,
    plan: &Plan,
    interruption: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let own_queue = if plan.own_queue { Some(OwnQueue::prepare(publisher).await?) } else { None };
    let seed = plan.seed.unwrap_or_else(rand::random);
    let mut shop = Shop::new(plan.mix.clone(), seed);
    let mut measurement = Measurement::start(plan.count, seed);
    let mut on_the_way = FuturesUnordered::new();
    // At most one cleanup, alongside the publishing, so that it adds to no event's latency.
    let mut tidying = FuturesUnordered::new();
    let mut fate = Fate::default();
    let progress = progress(plan, output.format());
    let mut started = 0;
    let mut ended = Ok(());
    let mut interruption = pin!(interruption);
    loop {
        let all_started = ended.is_err() || started == plan.count;
        if all_started && on_the_way.is_empty() {
            break;
        }
        let may_start = !all_started && on_the_way.len() < plan.window;
        if !may_start && on_the_way.is_empty() {
            break;
        }
        let due = plan.rate.map(|rate| measurement.started() + time_of(started, rate));
        tokio::select! {
            biased;
            () = &mut interruption, if ended.is_ok() => ended = Err(Failure::Interrupted),
            () = reach(due), if may_start => {
                let event = shop.next_event();
                started += 1;
                on_the_way.push(async move {
                    let message = publisher.mark(order_message(&event));
                    let handed_over = Instant::now();
                    let confirmation = publisher.publish(event.status.routing_key(), &message).await;
                    (event, message, confirmation.map(|()| handed_over.elapsed()))
                });
            }
            Some((event, message, confirmation)) = on_the_way.next() => match confirmation {
                Ok(latency) => {
                    measurement.confirmed(event.status, latency);
                    progress.inc(1);
                    if let Some(queue) = &own_queue
                        && measurement.count_confirmed().is_multiple_of(LOOK_EVERY)
                        && tidying.is_empty()
                    {
                        tidying.push(queue.tidy());
                    }
                    if plan.ids {
                        let shown = Published::new(event.status.routing_key(), &message);
                        let shown = output.published(&Published { order_id: Some(&event.order_id), ..shown });
                        ended = ended.and(shown);
                    }
                }
                // The first failure is the cause; later ones are mostly its effects.
                Err(failure) => ended = ended.and(Err(failure)),
            },
            Some(tidied) = tidying.next() => match tidied {
                Ok(tidied) => fate = tidied.after(fate),
                Err(failure) => ended = ended.and(Err(failure)),
            },
        }
    }
    while let Some(tidied) = tidying.next().await {
        fate = tidied.unwrap_or_default().after(fate);
    }
    let fate = match &own_queue {
        Some(queue) => match queue.tidy().await {
            Ok(tidied) => Some(tidied.after(fate)),
            Err(failure) => {
                ended = ended.and(Err(failure));
                None
            }
        },
        None => None,
    };
    progress.finish_and_clear();
    let report = measurement.report(publisher.exchange(), fate);
    let shown = output.show(&report, || report.to_string());
    // Report the failure first: its confirmed count must not be lost if printing the report fails.
    ended.map_err(|what| Failure::LoadStopped {
        confirmed: report.confirmed,
        count: plan.count,
        what: Box::new(what),
    })?;
    shown
}

/// Returns the due time of an event, numbered from 0.
fn time_of(number: u64, rate: f64) -> Duration {
    // Beyond 2^52 events the schedule is off by microseconds.
    #[expect(clippy::cast_precision_loss)]
    let seconds = number as f64 / rate;
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

async fn reach(due: Option<Instant>) {
    match due {
        Some(due) if due > Instant::now() => tokio::time::sleep_until(due.into()).await,
        _ => future::ready(()).await,
    }
}

/// Creates a progress bar on standard error, visible only on a terminal.
fn progress(plan: &Plan, format: Format) -> ProgressBar {
    // The ids that scroll by show the progress.
    let target =
        if format == Format::Quiet || plan.ids { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} confirmed, {per_sec}, {eta} to go");
    ProgressBar::with_draw_target(Some(plan.count), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_schedule() {
        assert_eq!(time_of(0, 0.5), Duration::ZERO);
        assert_eq!(time_of(3, 0.5), Duration::from_secs(6));
        assert_eq!(time_of(2_000, 1_000.0), Duration::from_secs(2));
    }
}
