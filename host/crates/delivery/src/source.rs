//! Consumes the source's queue: decodes and routes each message, and tries it at once with every plugin that
//! wants it.

use std::collections::HashSet;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Instant, SystemTime};

use broker::{Broker, BrokerError, Consumer, Delivery};
use event::clock::now;
use event::text::counted;
use event::{Arrived, Event, Rules};
use futures_util::future::join_all;
use futures_util::poll;
use telemetry::spans::{Span, Taken};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::consume_loop::consume;
use crate::delivery_headers::DeliveryHeaders;
use crate::duplicates::{Claim, Duplicates};
use crate::observer::ReceivedContext;
use crate::quarantine::Admission;
use crate::registry::Registry;
use crate::route::{Subscribed, route};
use crate::route_cache::RouteCache;
use crate::runner::Runner;
use crate::stall::SourceProgress;
use crate::unreadable;
use crate::verdict::Rule;
use crate::worker::Worker;

/// Maximum number of event types reported as unwanted.
const UNWANTED_SAID_MAX: usize = 100;

/// Event types that no plugin wanted. Each is reported once.
#[derive(Clone, Default)]
pub struct UnmatchedTypes(Arc<Mutex<HashSet<String>>>);

impl UnmatchedTypes {
    fn is_new(&self, event_type: &str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.len() < UNWANTED_SAID_MAX && !said.contains(event_type) && said.insert(event_type.to_owned())
    }
}

/// Consumes the source's queue and makes first attempts.
pub(super) struct SourceConsumer {
    pub(super) worker: Worker,
    pub(super) rules: Arc<Rules>,
    /// Plugins that events may go to, because their queues exist.
    pub(super) members: Arc<Registry>,
    pub(super) route_cache: RouteCache<Arc<Runner>>,
    /// All plugins.
    pub(super) registry: Arc<Registry>,
    pub(super) prefetch: u16,
    /// The plugin folder.
    pub(super) folder: Arc<Path>,
    pub(super) duplicates: Duplicates,
    pub(super) unmatched_types: UnmatchedTypes,
    pub(super) progress: Arc<SourceProgress>,
}

impl SourceConsumer {
    /// Consumes until `stop`, while there is at least one plugin. Without one, consuming would lose events.
    /// `first` is an open consumer, if there is one. Returns how many messages were given back unfinished. An
    /// error means that the session is lost.
    pub(super) async fn run(
        self: Arc<Self>,
        mut first: Option<Consumer>,
        stop: CancellationToken,
        give_up: CancellationToken,
    ) -> Result<usize, BrokerError> {
        let queue = self.worker.source.names.source();
        let mut given_back = 0;
        while !stop.is_cancelled() {
            if self.members.runners().is_empty() {
                let folder = self.folder.display();
                if self.registry.runners().is_empty() {
                    warn!(
                        "no plugin of {folder} runs: events stay in the queue; put one there that loads and is not switched off"
                    );
                } else {
                    warn!("no plugin has a queue of its own yet: events stay in the queue");
                }
                if stop.run_until_cancelled(self.members.until(true)).await.is_none() {
                    break;
                }
            }
            let broker = &self.worker.broker;
            let consumer = match first.take() {
                Some(consumer) => consumer,
                None => broker.consume(queue, self.prefetch).await?,
            };
            let members = self.members.runners();
            let name = |runner: &Arc<Runner>| {
                let not_yet = if runner.is_loaded() { "" } else { " (not loaded yet)" };
                format!("{}{not_yet}", runner.name)
            };
            let names: Vec<_> = members.iter().map(name).collect();
            let (url, count) = (broker.url(), counted(names.len(), "plugin"));
            info!("ready: consuming queue {queue:?} at {url} with {count}: {}", names.join(", "));
            self.progress.consuming(true);
            let enough = async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.members.until(false) => {}
                }
            };
            let caution = &self.worker.caution;
            let see_through = |delivery| Arc::clone(&self).see_through(delivery);
            given_back += consume(consumer, enough, &give_up, caution, see_through).await?;
            self.progress.consuming(false);
        }
        Ok(given_back)
    }

    async fn see_through(self: Arc<Self>, delivery: Delivery) {
        self.progress.taken();
        let taken = Instant::now();
        let is_settled = if self.worker.caution.is_on() {
            Box::pin(self.work_with_caution(delivery)).await
        } else {
            self.work(delivery).await
        };
        if is_settled {
            self.worker.metrics.settled.took(taken.elapsed());
        }
        self.progress.ended();
    }

    /// Does the same as [`Self::work`], once the message may be handled. Sets the message aside if it is
    /// convicted.
    async fn work_with_caution(&self, delivery: Delivery) -> bool {
        let metrics = &self.worker.metrics;
        match self.worker.caution.admit(self.worker.source.names.source(), &delivery).await {
            Admission::NotNow => false,
            Admission::Handle(mut admitted) => {
                let is_settled = Box::pin(admitted.during(self.work(delivery))).await;
                if is_settled {
                    admitted.settled().await;
                } else if self.members.runners().is_empty() {
                    admitted.given_back().await;
                }
                is_settled
            }
            Admission::SetAside(mut admitted, verdict) => {
                let delivery_headers = DeliveryHeaders::begin(&delivery, None, now());
                if let Err(error) =
                    Box::pin(admitted.during(self.worker.set_aside(&delivery, delivery_headers, verdict))).await
                {
                    debug!(%error, "a message was not settled, and will come again");
                    return false;
                }
                metrics.quarantined.one_more();
                metrics.dead.one_more();
                delivery.receipt.ack();
                admitted.settled().await;
                true
            }
        }
    }

    /// Handles one message. Returns whether it is acknowledged.
    async fn work(&self, delivery: Delivery) -> bool {
        let (metrics, since) = (&self.worker.metrics, self.worker.spans.now());
        let mut delivery_headers = DeliveryHeaders::begin(&delivery, None, now());
        let arrived =
            Arrived { message: &delivery.message, exchange: &delivery.exchange, routing_key: &delivery.routing_key };
        let event = match unreadable::event_of(&delivery, arrived, &self.rules) {
            Ok(event) => event,
            Err(fault) => {
                self.receive(&delivery, None, since).failed(&fault.code, &fault.reason);
                if let Err(error) = Box::pin(self.worker.give_up(&delivery, delivery_headers, fault)).await {
                    debug!(%error, "a message was not settled, and will come again");
                    return false;
                }
                metrics.undecodable.one_more();
                metrics.dead.one_more();
                delivery.receipt.ack();
                return true;
            }
        };
        let mut span = self.receive(&delivery, Some(&event), since);
        delivery_headers.trace = span.as_cause();
        // An id derived from the content proves nothing: the same content may be sent twice on purpose.
        let claim = if event.has_own_id { self.duplicates.claim(event.key()).await } else { Claim::New(None) };
        let claimed = match claim {
            Claim::New(claimed) => claimed,
            Claim::Duplicate => {
                debug!(event_id = event.id, event_type = event.event_type, "dropped a duplicate");
                span.note("notify.result", "duplicate");
                span.done();
                self.worker.observer.duplicate(&event);
                metrics.duplicate.one_more();
                delivery.receipt.ack();
                return true;
            }
        };
        let is_settled = self.offer(&event, &delivery, &delivery_headers, &mut span).await;
        if is_settled {
            span.done();
            // Acknowledge last. A crash before this repeats the calls, which plugins tolerate thanks to the
            // idempotency key. The other order would lose the event.
            delivery.receipt.ack();
            if let Some(claimed) = claimed {
                claimed.settled();
            }
        } else {
            span.failed("unsettled", "the message was not settled, and will come again");
        }
        is_settled
    }

    fn receive(&self, delivery: &Delivery, event: Option<&Event>, since: Option<SystemTime>) -> Span {
        let Worker { broker, source, spans, .. } = &self.worker;
        spans.receive(Taken {
            system: match broker {
                Broker::Amqp(_) => "rabbitmq",
                Broker::Sqlite(_) => "sqlite",
            },
            queue: source.names.source(),
            routing_key: &delivery.routing_key,
            message: &delivery.message,
            event,
            since,
        })
    }

    /// Runs all plugins that want the event, side by side. Returns whether all deliveries are settled.
    async fn offer(
        &self,
        event: &Event,
        delivery: &Delivery,
        delivery_headers: &DeliveryHeaders,
        span: &mut Span,
    ) -> bool {
        let members = self.members.runners();
        if members.is_empty() {
            // The last plugin left while this message was on its way.
            return false;
        }
        let routing = route(&members, &self.route_cache, event);
        let received = ReceivedContext::new(delivery_headers.first_at, event, delivery, &routing);
        let is_wanted = routing.wanting().next().is_some();
        span.note("notify.result", if is_wanted { "routed" } else { "unmatched" });
        if !is_wanted {
            let (event_id, event_type) = (&event.id, &event.event_type);
            if self.unmatched_types.is_new(event_type) {
                info!(event_id, event_type, "no plugin wants events of this type, or not this one; said once for each");
            }
            debug!(event_id, event_type, "no plugin wants this event");
        }
        let attempts = routing.wanting().map(|Subscribed { runner, rule }| {
            // Go by the routing decision, not by the plugin's state: it may have been loaded since.
            let is_routed = *rule != Rule::NotYetRouted;
            let received = &received;
            Box::pin(async move {
                if is_routed {
                    self.worker.first(runner, event, received, delivery, delivery_headers).await
                } else {
                    self.worker.keep_unrouted(runner, event, received, delivery, delivery_headers).await
                }
            })
        });
        let mut attempts = pin!(join_all(attempts));
        let at_once = poll!(attempts.as_mut());
        // Report the event before its attempts end, so that a query already finds it.
        self.worker.observer.received(&received);
        let results = match at_once {
            Poll::Ready(results) => results,
            Poll::Pending => attempts.await,
        };
        let mut settled = true;
        for result in results {
            if let Err(error) = result {
                debug!(event_id = event.id, %error, "a delivery was not settled, and will come again");
                settled = false;
            }
        }
        // Count an event once, even if its message is offered again.
        if settled {
            let metrics = &self.worker.metrics;
            let count = if is_wanted { &metrics.routed } else { &metrics.unmatched };
            count.one_more();
        }
        settled
    }
}
