//! Consumes a plugin's backlog: its own queue, with deliveries that spilled or are due again.
//!
//! The queue is consumed only while the plugin may be called. Nothing is held unacknowledged while the breaker
//! is open, in quiet hours, or when the rate's next turn is far away. RabbitMQ would end the consumer after
//! half an hour (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broker::{BrokerError, Delivery};
use event::clock::now;
use event::{Arrived, Event, Rules};
use telemetry::metrics::GivenUp;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::admission::BacklogDraw;
use crate::consume_loop::consume;
use crate::deliver::Handling;
use crate::delivery_headers::{DeliveryHeaders, Recipient, forget_own_waits};
use crate::quarantine::Admission;
use crate::runner::Runner;
use crate::unreadable;
use crate::worker::Worker;

/// Shortest pause before consuming the queue again after it was lost.
const LOST_QUEUE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause before consuming the queue again after it was lost.
const LOST_QUEUE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// The queue counts as empty if nothing arrives for this long although it could.
const EMPTY_AFTER: Duration = Duration::from_millis(250);
/// How long the broker may take to report the length of the queue. The answer is not worth a longer wait.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One plugin's backlog.
#[derive(Clone)]
pub(super) struct Backlog {
    pub(super) worker: Worker,
    pub(super) rules: Arc<Rules>,
    pub(super) runner: Arc<Runner>,
}

impl Backlog {
    /// Consumes the backlog until `stop`. Returns how many messages were given back unfinished. An error means
    /// that the session is lost.
    pub(super) async fn run(self, stop: CancellationToken, give_up: CancellationToken) -> Result<usize, BrokerError> {
        let (mut pause, mut said) = (LOST_QUEUE_PAUSE_MIN, String::new());
        loop {
            let Some(draw) = stop.run_until_cancelled(self.runner.when_ready()).await else { return Ok(0) };
            let began = Instant::now();
            match self.work(draw, &stop, &give_up).await {
                Ok(given_back) if stop.is_cancelled() => return Ok(given_back),
                // The next turn may be hours away. Ask now whether anything waits, so that the plugin's status is
                // right meanwhile.
                Ok(_) if self.runner.is_behind() => self.look_whether_empty().await,
                Ok(_) => {}
                Err(error @ BrokerError::Lost(_)) => return Err(error),
                Err(error @ (BrokerError::ConsumerCancelled { .. } | BrokerError::Refused(_))) => {
                    if began.elapsed() > LOST_QUEUE_PAUSE_MAX {
                        (pause, said) = (LOST_QUEUE_PAUSE_MIN, String::new());
                    }
                    let problem = match self.declare().await? {
                        None => format!("{error}; made it anew"),
                        Some(refusal) => format!("{error}; cannot make it anew, and goes on trying: {refusal}"),
                    };
                    // Warn once for each kind of problem, not at every attempt.
                    if problem != said {
                        warn!(plugin = &*self.runner.name, "cannot take from its queue: {problem}");
                        said = problem;
                    }
                    let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    pause = pause.saturating_mul(2).min(LOST_QUEUE_PAUSE_MAX);
                }
            }
        }
    }

    async fn look_whether_empty(&self) {
        let Worker { broker, source, .. } = &self.worker;
        let queue = source.names.plugin(&self.runner.name);
        let inspected = tokio::time::timeout(INSPECT_TIMEOUT, broker.inspect(&queue)).await;
        if inspected.is_ok_and(|state| state.is_ok_and(|state| state.is_some_and(|state| state.ready == 0))) {
            self.runner.caught_up();
        }
    }

    /// Declares the plugin's queue. Returns the broker's refusal, if it refuses.
    async fn declare(&self) -> Result<Option<BrokerError>, BrokerError> {
        let Worker { broker, source, .. } = &self.worker;
        match broker.declare_plugins(&source.names, &[&self.runner.name]).await {
            Ok(_) => Ok(None),
            Err(error @ BrokerError::Lost(_)) => Err(error),
            Err(error) => Ok(Some(error)),
        }
    }

    async fn work(
        &self,
        draw: BacklogDraw,
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) -> Result<usize, BrokerError> {
        let Worker { broker, source, .. } = &self.worker;
        let prefetch = u16::try_from(draw.in_hand).unwrap_or(u16::MAX);
        let consumer = broker.consume(&source.names.plugin(&self.runner.name), prefetch).await?;
        let (hand, give_back) = (Arc::new(Hand::default()), CancellationToken::new());
        let enough = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.runner.when_different(draw) => {}
                () = self.notice_the_end(&hand) => {}
            }
            // Deliveries that wait for their turn can do so in the queue just as well.
            give_back.cancel();
        };
        consume(consumer, enough, give_up, &self.worker.caution, |delivery| {
            let (backlog, held, give_back) = (self.clone(), HeldDelivery::new(&hand), give_back.clone());
            async move {
                let _held = held;
                backlog.see_through(delivery, &give_back).await;
            }
        })
        .await
    }

    /// Notes whenever the queue has become empty. Runs for as long as it is polled.
    async fn notice_the_end(&self, hand: &Hand) {
        loop {
            self.runner.when_behind().await;
            let drawn = hand.drawn.load(Ordering::Relaxed);
            tokio::time::sleep(EMPTY_AFTER).await;
            if hand.held.load(Ordering::Relaxed) == 0 && hand.drawn.load(Ordering::Relaxed) == drawn {
                self.runner.caught_up();
            }
        }
    }

    async fn see_through(self, delivery: Delivery, give_back: &CancellationToken) {
        if self.worker.caution.is_on() {
            Box::pin(self.see_through_with_caution(delivery, give_back)).await;
        } else {
            self.handle(delivery, give_back).await;
        }
    }

    /// Does the same as [`Self::handle`], once the message may be handled. Sets the message aside if it is
    /// convicted.
    async fn see_through_with_caution(&self, delivery: Delivery, give_back: &CancellationToken) {
        let queue = self.worker.source.names.plugin(&self.runner.name);
        let admission = give_back.run_until_cancelled(self.worker.caution.admit(&queue, &delivery)).await;
        match admission {
            None | Some(Admission::NotNow) => {}
            Some(Admission::Handle(mut admitted)) => {
                match Box::pin(admitted.during(self.handle(delivery, give_back))).await {
                    Some(Handling::Settled) => admitted.settled().await,
                    Some(Handling::NotNow) => admitted.given_back().await,
                    None => {}
                }
            }
            Some(Admission::SetAside(mut admitted, verdict)) => {
                let delivery_headers = self.headers_of(&delivery);
                match Box::pin(admitted.during(self.worker.set_aside(&delivery, delivery_headers, verdict))).await {
                    Ok(()) => {
                        self.runner.metrics.gave_up(GivenUp::Quarantined);
                        delivery.receipt.ack();
                        admitted.settled().await;
                    }
                    Err(error) => debug!(%error, "a message was not settled, and will come again"),
                }
            }
        }
    }

    fn headers_of(&self, delivery: &Delivery) -> DeliveryHeaders {
        let delivery_headers = DeliveryHeaders::read(&delivery.message).unwrap_or_else(|| {
            // Somebody may have put the message there by hand.
            DeliveryHeaders::begin(delivery, None, now())
        });
        let is_lost = delivery.unreadable.is_some() && delivery_headers.recipient.is_none();
        // The delivery headers were unreadable, but the queue names the plugin. Record it, so that a replay does
        // not go to all plugins.
        let recipient = is_lost.then(|| Recipient {
            plugin: self.runner.name.to_string(),
            event_id: String::new(),
            event_type: String::new(),
            idempotency_key: String::new(),
        });
        DeliveryHeaders { recipient: delivery_headers.recipient.or(recipient), ..delivery_headers }
    }

    /// Handles one delivery. Returns `None` if it was not settled because the session is lost.
    async fn handle(&self, mut delivery: Delivery, give_back: &CancellationToken) -> Option<Handling> {
        let names = &self.worker.source.names;
        forget_own_waits(&mut delivery.message.properties.headers, names);
        let delivery_headers = self.headers_of(&delivery);
        // Measure the wait only before the first attempt. Later ones also waited in a retry queue, and nobody
        // recorded for how long.
        if delivery_headers.attempts == 0 {
            self.runner.metrics.taken(delivery_headers.round_at);
        }
        let arrived = Arrived {
            message: &delivery.message,
            exchange: &delivery_headers.exchange,
            routing_key: &delivery_headers.routing_key,
        };
        let seen = match unreadable::event_of(&delivery, arrived, &self.rules) {
            Ok(event) => self.route_and_try(&event, &delivery, delivery_headers, give_back).await,
            Err(fault) => {
                let given_up = self.worker.give_up(&delivery, delivery_headers, fault).await;
                given_up.map(|()| {
                    self.runner.metrics.gave_up(GivenUp::Undecodable);
                    Handling::Settled
                })
            }
        };
        match seen {
            Ok(seen) => {
                if seen == Handling::Settled {
                    delivery.receipt.ack();
                }
                Some(seen)
            }
            Err(error) => {
                debug!(%error, "a delivery was not settled, and will come again");
                None
            }
        }
    }
}

impl Backlog {
    /// Makes an attempt. A delivery that was queued before the plugin had loaded is routed first, and dropped
    /// if the plugin does not want it.
    async fn route_and_try(
        &self,
        event: &Event,
        delivery: &Delivery,
        delivery_headers: DeliveryHeaders,
        give_back: &CancellationToken,
    ) -> Result<Handling, BrokerError> {
        if delivery_headers.not_yet_routed {
            // Nothing is taken for a plugin that has not been loaded.
            let Some(version) = self.runner.current() else { return Ok(Handling::NotNow) };
            if let Some(why) = version.declines(event) {
                debug!(plugin = &*self.runner.name, event_id = event.id, %why, "not wanted after all");
                self.worker.observer.declined(event, &self.runner.name, &why);
                return Ok(Handling::Settled);
            }
        }
        let delivery_headers = DeliveryHeaders { not_yet_routed: false, ..delivery_headers };
        self.worker.again(&self.runner, event, delivery, &delivery_headers, give_back).await
    }
}

/// Counts the deliveries that one consumer took from the queue.
#[derive(Default)]
struct Hand {
    held: AtomicUsize,
    /// Total since the consumer started.
    drawn: AtomicUsize,
}

/// Counts one delivery as held for as long as this lives.
struct HeldDelivery(Arc<Hand>);

impl HeldDelivery {
    fn new(hand: &Arc<Hand>) -> Self {
        hand.held.fetch_add(1, Ordering::Relaxed);
        hand.drawn.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(hand))
    }
}

impl Drop for HeldDelivery {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}
