//! A plugin's backlog: what was spilled, and what is due again, in a queue of its own.
//!
//! It is only taken from while the plugin may be called. While the breaker is open nothing is held
//! unacknowledged: RabbitMQ would end the consumer after half an hour
//! (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{BrokerError, Delivery};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::delivery::clock::now;
use crate::delivery::policy::Fault;
use crate::delivery::pump::pump;
use crate::delivery::runner::Runner;
use crate::delivery::trail::{Trail, forget_own_waits};
use crate::delivery::worker::{Seen, Worker};
use crate::event::{Arrived, Rules, decode};

/// Before the queue is asked for again, when it was taken away.
const LOST_QUEUE_PAUSE_MIN: Duration = Duration::from_secs(1);
const LOST_QUEUE_PAUSE_MAX: Duration = Duration::from_secs(30);

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
            let Some(probing) = stop.run_until_cancelled(self.runner.when_well()).await else { return Ok(0) };
            let began = Instant::now();
            match self.work(probing, &stop, &give_up).await {
                Ok(given_back) if stop.is_cancelled() => return Ok(given_back),
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
        probing: bool,
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) -> Result<usize, BrokerError> {
        let Worker { broker, source, .. } = &self.worker;
        let backlog_max = self.runner.backlog_max();
        let prefetch = if probing { 1 } else { backlog_max };
        let prefetch = u16::try_from(prefetch).unwrap_or(u16::MAX);
        let consumer = broker.consume(&source.names.plugin(&self.runner.name), prefetch).await?;
        let enough = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.runner.when_different(probing, backlog_max) => {}
            }
        };
        pump(consumer, enough, give_up, |delivery| self.clone().see_through(delivery)).await
    }

    async fn see_through(self, mut delivery: Delivery) {
        let names = &self.worker.source.names;
        forget_own_waits(&mut delivery.message.properties.headers, names);
        // Somebody may have put it there by hand.
        let trail = Trail::read(&delivery.message).unwrap_or_else(|| Trail::begin(&delivery, None, now()));
        let arrived =
            Arrived { message: &delivery.message, exchange: &trail.exchange, routing_key: &trail.routing_key };
        let seen = match decode(arrived, &self.rules) {
            Ok(event) => self.worker.again(&self.runner, &event, &delivery, trail).await,
            Err(error) => {
                let fault = Fault::new(error.code(), error.to_string());
                self.worker.scribe.undecodable(&delivery, &trail, &fault);
                self.worker.give_up(&delivery, trail, fault).await.map(|()| Seen::Through)
            }
        };
        match seen {
            Ok(Seen::Through) => delivery.receipt.ack(),
            Ok(Seen::NotNow) => {}
            Err(error) => debug!(%error, "a delivery was not settled, and will come again"),
        }
    }
}
