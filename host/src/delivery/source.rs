//! The dispatcher takes messages from the source queue and sees each through to its settlement.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker::{Broker, BrokerError, Consumer, Delivery, QueueNames};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::delivery::dead_letter::{EventNames, Obituary};
use crate::delivery::policy::{Fault, Outcome, Settlement, decide};
use crate::delivery::route::{Plugins, route};
use crate::delivery::settle::settle;
use crate::event::{Arrived, Event, Rules, decode};
use crate::plugin::{Attempt, Plugin};

/// There are no retries yet.
const ATTEMPTS_MAX: u32 = 1;
/// Headers that a plugin is shown, and bytes of each; the rest is for the broker.
const HEADERS_SHOWN_MAX: usize = 64;

/// Why the dispatcher stopped.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was asked to.
    Stopped {
        /// Messages that went back to the queue, because they were not done in time.
        given_back: usize,
    },
    /// The session is lost.
    Lost(BrokerError),
}

/// What every delivery needs.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) broker: Broker,
    pub(crate) names: QueueNames,
    pub(crate) rules: Arc<Rules>,
    pub(crate) plugins: Plugins,
    pub(crate) drain_timeout: Duration,
}

impl Dispatcher {
    /// Takes messages until it is stopped or the session is lost. When stopped it takes no more,
    /// lets what is in flight finish within the drain timeout, and gives back the rest.
    pub(crate) async fn run(self, mut consumer: Consumer, stop: &CancellationToken) -> Ended {
        let drain_timeout = self.drain_timeout;
        let dispatcher = Arc::new(self);
        let tasks = TaskTracker::new();
        let give_up = CancellationToken::new();
        let lost = loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break None,
                next = consumer.next() => next,
            };
            match next {
                // The prefetch bounds how many there are.
                Some(Ok(delivery)) => {
                    let dispatcher = Arc::clone(&dispatcher);
                    let give_up = give_up.clone();
                    tasks.spawn(async move {
                        // Dropping a delivery is to give it back.
                        give_up.run_until_cancelled(dispatcher.see_through(delivery)).await;
                    });
                }
                Some(Err(error)) => break Some(error),
                None => break Some(BrokerError::Lost("the consumer ended".to_owned())),
            }
        };
        tasks.close();
        if let Some(error) = lost {
            // What is in flight belongs to a session that is gone: the messages come again on the
            // next one. The calls may finish, but nothing waits for them.
            give_up.cancel();
            return Ended::Lost(error);
        }
        if tokio::time::timeout(drain_timeout, tasks.wait()).await.is_err() {
            debug!("the drain timeout has passed");
        }
        let given_back = tasks.len();
        give_up.cancel();
        tasks.wait().await;
        match consumer.close().await {
            Ok(()) => Ended::Stopped { given_back },
            Err(error) => {
                warn!(%error, "the last acknowledgements may not have arrived; their messages come again");
                Ended::Stopped { given_back }
            }
        }
    }

    async fn see_through(&self, delivery: Delivery) {
        let first_at = now();
        let arrived =
            Arrived { message: &delivery.message, exchange: &delivery.exchange, routing_key: &delivery.routing_key };
        let obituaries = match decode(arrived, &self.rules) {
            Ok(event) => self.offer(&event, &delivery, first_at).await,
            Err(error) => {
                let (exchange, routing_key) = (&delivery.exchange, &delivery.routing_key);
                warn!(exchange, routing_key, code = error.code(), "dead-lettered a message: {error}");
                let fault = Fault::new(error.code(), error.to_string());
                vec![Obituary { fault, event: None, first_at, last_at: first_at }]
            }
        };
        if let Err(error) = settle(&self.broker, &self.names, delivery, obituaries).await {
            debug!(%error, "a message was not settled, and will come again");
        }
    }

    /// Runs all plugins that want the event, side by side. What they failed at is returned.
    async fn offer(&self, event: &Event, delivery: &Delivery, first_at: i64) -> Vec<Obituary> {
        let calls = route(&self.plugins, event).map(|plugin| self.deliver(plugin, event, delivery, first_at));
        let obituaries = join_all(calls).await;
        if obituaries.is_empty() {
            debug!(event_id = event.id, event_type = event.event_type, "no plugin wants this event");
        }
        obituaries.into_iter().flatten().collect()
    }

    async fn deliver(&self, plugin: &Plugin, event: &Event, delivery: &Delivery, first_at: i64) -> Option<Obituary> {
        let idempotency_key = event.idempotency_key(&plugin.name);
        let attempt = Attempt {
            number: 1,
            max: ATTEMPTS_MAX,
            idempotency_key: idempotency_key.clone(),
            transport: transport(delivery),
        };
        let number = attempt.number;
        let outcome = Outcome::of(plugin.attempt(event, attempt).await);
        match decide(outcome) {
            Settlement::Done => {
                debug!(plugin = &*plugin.name, event_id = event.id, "done");
                None
            }
            Settlement::DeadLetter(fault) => {
                let (name, event_id, event_type) = (&*plugin.name, &event.id, &event.event_type);
                warn!(plugin = name, event_id, event_type, code = fault.code, "dead-lettered: {}", fault.reason);
                let event = EventNames {
                    plugin: name.to_owned(),
                    attempts: number,
                    id: event_id.clone(),
                    event_type: event_type.clone(),
                    idempotency_key,
                };
                Some(Obituary { fault, event: Some(event), first_at, last_at: now() })
            }
        }
    }
}

/// How the message travelled, for plugins that care.
fn transport(delivery: &Delivery) -> Vec<(String, String)> {
    let mut attributes = vec![
        ("amqp.exchange".to_owned(), delivery.exchange.clone()),
        ("amqp.routing-key".to_owned(), delivery.routing_key.clone()),
        ("amqp.redelivered".to_owned(), delivery.redelivered.to_string()),
    ];
    let headers = delivery.message.properties.headers.iter();
    let shown = headers.filter_map(|(name, value)| Some((format!("amqp.header.{name}"), value.to_text()?)));
    attributes.extend(shown.take(HEADERS_SHOWN_MAX));
    attributes
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
