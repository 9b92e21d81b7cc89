//! What every delivery needs: the session with the broker, and everybody who is told about it.

use std::sync::Arc;

use broker::{Broker, Source};
use event::Event;
use telemetry::metrics::{GivenUp, HostMetrics};
use telemetry::spans::Spans;
use tracing::warn;

use crate::delivery_headers::Recipient;
use crate::health_events::HealthEvents;
use crate::observer::DeliveryObserver;
use crate::policy::Fault;
use crate::quarantine::Caution;
use crate::runner::Runner;

/// The context that every delivery needs.
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
