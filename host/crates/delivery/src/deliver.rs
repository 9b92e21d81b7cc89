//! Delivers one event to one plugin: admits it to an attempt, or spills it to the plugin's own queue.

use std::sync::Arc;

use broker::{BrokerError, Delivery};
use event::Event;
use telemetry::metrics::SpillReason;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::admission::NotAdmitted;
use crate::attempt::PluginDelivery;
use crate::delivery_headers::DeliveryHeaders;
use crate::observer::ReceivedContext;
use crate::runner::Runner;
use crate::settle::{Forwarded, Onward, pass_on};
use crate::throttle::DeliveryOrigin;
use crate::worker::{Worker, could_not_pass_on, recipient};

/// Whether a delivery from the backlog is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handling {
    Settled,
    /// Not settled: the broker must offer the message again.
    NotNow,
}

impl Worker {
    /// Makes a first attempt, or spills the delivery. `delivery_headers` are those of the message as it
    /// arrived.
    pub(super) async fn first(
        &self,
        runner: &Arc<Runner>,
        event: &Event,
        received: &ReceivedContext<'_>,
        delivery: &Delivery,
        delivery_headers: &DeliveryHeaders,
    ) -> Result<(), BrokerError> {
        match runner.enter(DeliveryOrigin::Source, &CancellationToken::new()).await {
            Ok(permit) => {
                let one = PluginDelivery { runner, event, received: Some(received), delivery, delivery_headers };
                self.attempt(&one, permit).await
            }
            Err(refusal) => {
                self.spill(runner, event, received, delivery, delivery_headers.clone(), refusal.into()).await
            }
        }
    }

    /// Puts an event into the queue of a plugin that has not been loaded, marked as not yet routed.
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
        if let Forwarded::Dead(fault) = landed {
            self.observer.received(received);
            self.observer.undecodable(delivery, &DeliveryHeaders { fault: Some(fault.clone()), ..delivery_headers });
            could_not_pass_on(runner, &event.id, &fault);
            return Ok(());
        }
        runner.metrics.spilled(why);
        self.observer.spilled(received, &runner.name, why);
        Ok(())
    }

    /// Makes an attempt from the plugin's own queue, unless the delivery must wait and be given back.
    pub(super) async fn again(
        &self,
        runner: &Arc<Runner>,
        event: &Event,
        delivery: &Delivery,
        delivery_headers: &DeliveryHeaders,
        give_back: &CancellationToken,
    ) -> Result<Handling, BrokerError> {
        match runner.enter(DeliveryOrigin::Backlog, give_back).await {
            Ok(permit) => {
                let one = PluginDelivery { runner, event, received: None, delivery, delivery_headers };
                self.attempt(&one, permit).await.map(|()| Handling::Settled)
            }
            // The delivery is in the right queue already.
            Err(
                NotAdmitted::Busy
                | NotAdmitted::Unwell(_)
                | NotAdmitted::NotYet(_)
                | NotAdmitted::NotLoaded
                | NotAdmitted::LogBlocked
                | NotAdmitted::GivenBack,
            ) => Ok(Handling::NotNow),
        }
    }
}
