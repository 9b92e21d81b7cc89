//! The worker sees one delivery through: attempt, decision, settlement. It serves first attempts
//! and those from a plugin's backlog alike.

use std::sync::Arc;

use broker::{Broker, BrokerError, Delivery, Message, Source};
use event::Event;
use event::clock::{self};
use telemetry::metrics::{GivenUp, HostMeters, SpillReason};
use telemetry::spans::Spans;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::admission::{Origin, Refusal};
use crate::attempt::PluginDelivery;
use crate::delivery_headers::{Recipient, Trail};
use crate::health_events::Herald;
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
    pub(super) herald: Herald,
    pub(super) observer: Arc<dyn DeliveryObserver>,
    pub(super) spans: Spans,
    pub(super) meters: Arc<HostMeters>,
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
        trail: &Trail,
    ) -> Result<(), BrokerError> {
        match runner.enter(Origin::Source, &CancellationToken::new()).await {
            Ok(pass) => {
                let one = PluginDelivery { runner, event, received: Some(received), delivery, trail };
                self.attempt(&one, pass).await
            }
            Err(refusal) => self.spill(runner, event, received, delivery, trail.clone(), refusal.into()).await,
        }
    }

    /// Puts an event for a plugin that has not been loaded into its queue, marked as not yet routed.
    pub(super) async fn keep_unrouted(
        &self,
        runner: &Arc<Runner>,
        event: &Event,
        received: &ReceivedContext<'_>,
        delivery: &Delivery,
        trail: &Trail,
    ) -> Result<(), BrokerError> {
        let trail = Trail { not_yet_routed: true, ..trail.clone() };
        self.spill(runner, event, received, delivery, trail, SpillReason::NotLoaded).await
    }

    async fn spill(
        &self,
        runner: &Arc<Runner>,
        event: &Event,
        received: &ReceivedContext<'_>,
        delivery: &Delivery,
        trail: Trail,
        why: SpillReason,
    ) -> Result<(), BrokerError> {
        let trail = Trail { recipient: Some(recipient(runner, event)), ..trail };
        debug!(plugin = &*runner.name, event_id = event.id, why = why.as_str(), "spilled");
        let spill = Onward::Spill { plugin: &runner.name };
        let landed = Box::pin(pass_on(&self.broker, &self.source, &delivery.message, &trail, spill)).await?;
        if let Landed::Dead(fault) = landed {
            self.observer.received(received);
            self.observer.undecodable(delivery, &Trail { fault: Some(fault.clone()), ..trail });
            could_not_pass_on(runner, &event.id, &fault);
            return Ok(());
        }
        runner.meters.spilled(why);
        self.observer.spilled(received, &runner.name, why);
        Ok(())
    }

    /// An attempt from the plugin's own queue, unless it must wait and is to be given back.
    pub(super) async fn again(
        &self,
        runner: &Arc<Runner>,
        event: &Event,
        delivery: &Delivery,
        trail: &Trail,
        give_back: &CancellationToken,
    ) -> Result<Seen, BrokerError> {
        match runner.enter(Origin::Backlog, give_back).await {
            Ok(pass) => {
                let one = PluginDelivery { runner, event, received: None, delivery, trail };
                self.attempt(&one, pass).await.map(|()| Seen::Through)
            }
            // It is in the right queue already.
            Err(
                Refusal::Busy
                | Refusal::Unwell(_)
                | Refusal::NotYet(_)
                | Refusal::NotLoaded
                | Refusal::LogBlocked
                | Refusal::GivenBack,
            ) => Ok(Seen::NotNow),
        }
    }

    /// Gives up a message that is no event.
    pub(super) async fn give_up(&self, delivery: &Delivery, trail: Trail, fault: Fault) -> Result<(), BrokerError> {
        let letters = |trail: &Trail| match &delivery.unreadable {
            Some(unreadable) => {
                unreadable::letters(&delivery.message, unreadable, trail, self.broker.headers_bytes_max())
            }
            None => vec![trail.write(&delivery.message)],
        };
        self.give_up_as(GivenUp::Undecodable, delivery, letters, trail, fault).await
    }

    /// Puts a message that breaks sessions to the dead letters. Nothing looks into it.
    pub(super) async fn set_aside(
        &self,
        delivery: &Delivery,
        trail: Trail,
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
        self.give_up_as(GivenUp::Quarantined, delivery, |trail| vec![trail.write(message)], trail, fault).await
    }

    async fn give_up_as(
        &self,
        why: GivenUp,
        delivery: &Delivery,
        letters: impl FnOnce(&Trail) -> Vec<Message>,
        mut trail: Trail,
        fault: Fault,
    ) -> Result<(), BrokerError> {
        let (exchange, routing_key) = (&trail.exchange, &trail.routing_key);
        warn!(exchange, routing_key, code = fault.code, "dead-lettered a message: {}", fault.reason);
        trail.given_up = Some(why.as_str().to_owned());
        trail.last_at = clock::now();
        trail.fault = Some(fault);
        for letter in letters(&trail) {
            write_dead(&self.broker, &self.source, letter).await?;
        }
        self.observer.undecodable(delivery, &trail);
        Ok(())
    }
}

pub(super) fn could_not_pass_on(runner: &Runner, event_id: &str, fault: &Fault) {
    runner.meters.gave_up(GivenUp::Inexpressible);
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
