//! A plugin's backlog: what was spilled, and what is due again, in a queue of its own.
//!
//! It is only taken from while the plugin may be called. While the breaker is open, in quiet hours, and while
//! the next turn by the rate is far, nothing is held unacknowledged: RabbitMQ would end the consumer after half
//! an hour (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broker::{BrokerError, Delivery};
use event::clock::now;
use event::{Arrived, Event, Rules};
use telemetry::metrics::GivenUp;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::admission::Draw;
use crate::consume_loop::consume;
use crate::delivery_headers::{DeliveryHeaders, Recipient, forget_own_waits};
use crate::quarantine::Admission;
use crate::runner::Runner;
use crate::unreadable;
use crate::worker::{Seen, Worker};

/// Before the queue is asked for again, when it was taken away.
const LOST_QUEUE_PAUSE_MIN: Duration = Duration::from_secs(1);
const LOST_QUEUE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// When nothing has come from the queue for so long, though it might have, there is nothing in it.
const EMPTY_AFTER: Duration = Duration::from_millis(250);
/// How long the broker may take to say what is in the queue; it is not worth more.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One plugin's backlog.
#[derive(Clone)]
pub(super) struct Backlog {
    pub(super) worker: Worker,
    pub(super) rules: Arc<Rules>,
    pub(super) runner: Arc<Runner>,
}

impl Backlog {
    /// Works it off until `stop`. Returns how many messages were given back unfinished; an error
    /// means that the session is lost.
    pub(super) async fn run(self, stop: CancellationToken, give_up: CancellationToken) -> Result<usize, BrokerError> {
        let (mut pause, mut said) = (LOST_QUEUE_PAUSE_MIN, String::new());
        loop {
            let Some(draw) = stop.run_until_cancelled(self.runner.when_ready()).await else { return Ok(0) };
            let began = Instant::now();
            match self.work(draw, &stop, &give_up).await {
                Ok(given_back) if stop.is_cancelled() => return Ok(given_back),
                // The next turn may be hours away, and whoever asks wants to know whether anybody waits for it.
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
                    // Once for each kind of trouble, not at every try.
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

    /// Makes what is missing; why not, if the broker refuses.
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
        draw: Draw,
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
            // What waits for its turn waits in the queue as well as here.
            give_back.cancel();
        };
        consume(consumer, enough, give_up, &self.worker.caution, |delivery| {
            let (backlog, held, give_back) = (self.clone(), Held::new(&hand), give_back.clone());
            async move {
                let _held = held;
                backlog.see_through(delivery, &give_back).await;
            }
        })
        .await
    }

    /// Says whenever nothing waits in the queue any more. It goes on for as long as it is polled.
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

    /// The same as [`Self::handle`], once its turn has come, unless the message is to be set aside.
    async fn see_through_with_caution(&self, delivery: Delivery, give_back: &CancellationToken) {
        let queue = self.worker.source.names.plugin(&self.runner.name);
        let admitted = give_back.run_until_cancelled(self.worker.caution.admit(&queue, &delivery)).await;
        match admitted {
            None | Some(Admission::NotNow) => {}
            Some(Admission::Handle(mut pass)) => match Box::pin(pass.during(self.handle(delivery, give_back))).await {
                Some(Seen::Through) => pass.settled().await,
                Some(Seen::NotNow) => pass.given_back().await,
                None => {}
            },
            Some(Admission::SetAside(mut pass, verdict)) => {
                let delivery_headers = self.trail_of(&delivery);
                match Box::pin(pass.during(self.worker.set_aside(&delivery, delivery_headers, verdict))).await {
                    Ok(()) => {
                        self.runner.metrics.gave_up(GivenUp::Quarantined);
                        delivery.receipt.ack();
                        pass.settled().await;
                    }
                    Err(error) => debug!(%error, "a message was not settled, and will come again"),
                }
            }
        }
    }

    fn trail_of(&self, delivery: &Delivery) -> DeliveryHeaders {
        let delivery_headers = DeliveryHeaders::read(&delivery.message).unwrap_or_else(|| {
            // Somebody may have put it there by hand.
            DeliveryHeaders::begin(delivery, None, now())
        });
        let is_lost = delivery.unreadable.is_some() && delivery_headers.recipient.is_none();
        // The event's own headers are lost, but its plugin is known: a replay must not go to all plugins.
        let recipient = is_lost.then(|| Recipient {
            plugin: self.runner.name.to_string(),
            event_id: String::new(),
            event_type: String::new(),
            idempotency_key: String::new(),
        });
        DeliveryHeaders { recipient: delivery_headers.recipient.or(recipient), ..delivery_headers }
    }

    /// `None`: it was not settled, for the session is lost.
    async fn handle(&self, mut delivery: Delivery, give_back: &CancellationToken) -> Option<Seen> {
        let names = &self.worker.source.names;
        forget_own_waits(&mut delivery.message.properties.headers, names);
        let delivery_headers = self.trail_of(&delivery);
        // What has been tried has waited elsewhere, and nobody wrote down for how long.
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
                    Seen::Through
                })
            }
        };
        match seen {
            Ok(seen) => {
                if seen == Seen::Through {
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
    /// An attempt, unless the plugin turns out not to want what came before it could be asked.
    async fn route_and_try(
        &self,
        event: &Event,
        delivery: &Delivery,
        delivery_headers: DeliveryHeaders,
        give_back: &CancellationToken,
    ) -> Result<Seen, BrokerError> {
        if delivery_headers.not_yet_routed {
            // Nothing is taken for a plugin that has not been loaded.
            let Some(version) = self.runner.current() else { return Ok(Seen::NotNow) };
            if let Some(why) = version.declines(event) {
                debug!(plugin = &*self.runner.name, event_id = event.id, %why, "not wanted after all");
                self.worker.observer.declined(event, &self.runner.name, &why);
                return Ok(Seen::Through);
            }
        }
        let delivery_headers = DeliveryHeaders { not_yet_routed: false, ..delivery_headers };
        self.worker.again(&self.runner, event, delivery, &delivery_headers, give_back).await
    }
}

/// What was taken from the queue by one consumer.
#[derive(Default)]
struct Hand {
    held: AtomicUsize,
    /// In all.
    drawn: AtomicUsize,
}

/// One delivery in hand, for as long as it lives.
struct Held(Arc<Hand>);

impl Held {
    fn new(hand: &Arc<Hand>) -> Self {
        hand.held.fetch_add(1, Ordering::Relaxed);
        hand.drawn.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(hand))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}
