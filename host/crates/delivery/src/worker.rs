//! The worker sees one delivery through: attempt, decision, settlement. It serves first attempts
//! and those from a plugin's backlog alike.

use std::sync::Arc;

use broker::{Broker, BrokerError, Delivery, Message, Source};
use event::Event;
use event::clock::{self};
use telemetry::metrics::{GivenUp, HostMetrics, SpillReason};
use telemetry::spans::Spans;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::admission::{NotAdmitted, Origin};
use crate::attempt::PluginDelivery;
use crate::delivery_headers::{DeliveryHeaders, Recipient};
use crate::health_events::HealthEvents;
use crate::observer::{DeliveryObserver, ReceivedContext};
use crate::policy::Fault;
use crate::quarantine::{Caution, Form, Verdict};
use crate::runner::Runner;
use crate::settle::{Landed, Onward, pass_on, write_dead};
use crate::unreadable;

/// The header of a dead letter with the message's properties, where they could not be carried as such.
const ORIGINAL_PROPERTIES: &str = "x-original-properties";

/// What every delivery needs.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) broker: Broker,
    pub(super) source: Arc<Source>,
    pub(super) health_events: HealthEvents,
    pub(super) observer: Arc<dyn DeliveryObserver>,
    pub(super) spans: Spans,
    pub(super) metrics: Arc<HostMetrics>,
    pub(super) caution: Arc<Caution>,
}

/// Whether a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Through,
    /// It must be offered again.
    NotNow,
}

impl Worker {
    /// A first attempt, or a spill. `trail` is that of the message as it came.
    pub(super) async fn first(
        &self,
        runner: &Arc<Runner>,
        event: &Event,
        received: &ReceivedContext<'_>,
        delivery: &Delivery,
        delivery_headers: &DeliveryHeaders,
    ) -> Result<(), BrokerError> {
        match runner.enter(Origin::Source, &CancellationToken::new()).await {
            Ok(permit) => {
                let one = PluginDelivery { runner, event, received: Some(received), delivery, delivery_headers };
                self.attempt(&one, permit).await
            }
            Err(refusal) => {
                self.spill(runner, event, received, delivery, delivery_headers.clone(), refusal.into()).await
            }
        }
    }

    /// Puts an event for a plugin that has not been loaded into its queue, marked as not yet routed.
    pub(super) async fn keep_unrouted(
        &self,
        runner: &Arc<Runner>,
        event: &Event,
        received: &ReceivedContext<'_>,
        delivery: &Delivery,
        delivery_headers: &DeliveryHeaders,
    ) -> Result<(), BrokerError> {
        let delivery_headers = DeliveryHeaders { not_yet_routed: true, ..delivery_headers.clone() };
        self.spill(runner, event, received, delivery, delivery_headers, SpillReason::NotLoaded).await
    }

    async fn spill(
        &self,
        runner: &Arc<Runner>,
        event: &Event,
        received: &ReceivedContext<'_>,
        delivery: &Delivery,
        delivery_headers: DeliveryHeaders,
        why: SpillReason,
    ) -> Result<(), BrokerError> {
        let delivery_headers = DeliveryHeaders { recipient: Some(recipient(runner, event)), ..delivery_headers };
        debug!(plugin = &*runner.name, event_id = event.id, why = why.as_str(), "spilled");
        let spill = Onward::Spill { plugin: &runner.name };
        let landed = Box::pin(pass_on(&self.broker, &self.source, &delivery.message, &delivery_headers, spill)).await?;
        if let Landed::Dead(fault) = landed {
            self.observer.received(received);
            self.observer.undecodable(delivery, &DeliveryHeaders { fault: Some(fault.clone()), ..delivery_headers });
            could_not_pass_on(runner, &event.id, &fault);
            return Ok(());
        }
        runner.metrics.spilled(why);
        self.observer.spilled(received, &runner.name, why);
        Ok(())
    }

    /// An attempt from the plugin's own queue, unless it must wait and is to be given back.
    pub(super) async fn again(
        &self,
        runner: &Arc<Runner>,
        event: &Event,
        delivery: &Delivery,
        delivery_headers: &DeliveryHeaders,
        give_back: &CancellationToken,
    ) -> Result<Seen, BrokerError> {
        match runner.enter(Origin::Backlog, give_back).await {
            Ok(permit) => {
                let one = PluginDelivery { runner, event, received: None, delivery, delivery_headers };
                self.attempt(&one, permit).await.map(|()| Seen::Through)
            }
            // It is in the right queue already.
            Err(
                NotAdmitted::Busy
                | NotAdmitted::Unwell(_)
                | NotAdmitted::NotYet(_)
                | NotAdmitted::NotLoaded
                | NotAdmitted::LogBlocked
                | NotAdmitted::GivenBack,
            ) => Ok(Seen::NotNow),
        }
    }

    /// Gives up a message that is no event.
    pub(super) async fn give_up(
        &self,
        delivery: &Delivery,
        delivery_headers: DeliveryHeaders,
        fault: Fault,
    ) -> Result<(), BrokerError> {
        let letters = |delivery_headers: &DeliveryHeaders| match &delivery.unreadable {
            Some(unreadable) => {
                unreadable::letters(&delivery.message, unreadable, delivery_headers, self.broker.headers_bytes_max())
            }
            None => vec![delivery_headers.write(&delivery.message)],
        };
        self.give_up_as(GivenUp::Undecodable, delivery, letters, delivery_headers, fault).await
    }

    /// Puts a message that breaks sessions to the dead letters. Nothing looks into it.
    pub(super) async fn set_aside(
        &self,
        delivery: &Delivery,
        delivery_headers: DeliveryHeaders,
        verdict: Verdict,
    ) -> Result<(), BrokerError> {
        let Verdict { form, fault } = verdict;
        let Message { body, properties } = &delivery.message;
        let mut plain = Message { body: body.clone(), ..Message::default() };
        let message = match form {
            Form::Whole => &delivery.message,
            Form::PropertiesAsText => {
                let text = serde_json::to_string(properties).unwrap_or_default();
                plain.properties.headers.insert(ORIGINAL_PROPERTIES.to_owned(), text.into());
                &plain
            }
            Form::BodyOnly => &plain,
        };
        self.give_up_as(
            GivenUp::Quarantined,
            delivery,
            |delivery_headers| vec![delivery_headers.write(message)],
            delivery_headers,
            fault,
        )
        .await
    }

    async fn give_up_as(
        &self,
        why: GivenUp,
        delivery: &Delivery,
        letters: impl FnOnce(&DeliveryHeaders) -> Vec<Message>,
        mut delivery_headers: DeliveryHeaders,
        fault: Fault,
    ) -> Result<(), BrokerError> {
        let (exchange, routing_key) = (&delivery_headers.exchange, &delivery_headers.routing_key);
        warn!(exchange, routing_key, code = fault.code, "dead-lettered a message: {}", fault.reason);
        delivery_headers.given_up = Some(why.as_str().to_owned());
        delivery_headers.last_at = clock::now();
        delivery_headers.fault = Some(fault);
        for letter in letters(&delivery_headers) {
            write_dead(&self.broker, &self.source, letter).await?;
        }
        self.observer.undecodable(delivery, &delivery_headers);
        Ok(())
    }
}

pub(super) fn could_not_pass_on(runner: &Runner, event_id: &str, fault: &Fault) {
    runner.metrics.gave_up(GivenUp::Inexpressible);
    warn!(plugin = &*runner.name, event_id, code = fault.code, "dead-lettered: {}", fault.reason);
}

pub(super) fn recipient(runner: &Runner, event: &Event) -> Recipient {
    Recipient {
        plugin: runner.name.to_string(),
        event_id: event.id.clone(),
        event_type: event.event_type.clone(),
        idempotency_key: event.idempotency_key(&runner.name),
    }
}
