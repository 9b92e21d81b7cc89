//! The scribe writes down what delivery does, in the journal.
//!
//! What it says has happened: it is told after the broker has confirmed where a delivery went.

use std::time::Duration;

use broker::Delivery;

use crate::delivery::clock::now;
use crate::delivery::entry::Refusal;
use crate::delivery::policy::{Fault, Outcome};
use crate::delivery::runner::Runner;
use crate::delivery::trail::Trail;
use crate::event::Event;
use crate::journal::{Attempted, Journal, Next, Received, Record, Recorded, Routed, SpillReason, What};

/// Characters of a reason that are kept.
const REASON_CHARACTERS_MAX: usize = 1000;

#[derive(Clone)]
pub(super) struct Scribe {
    journal: Journal,
}

/// One attempt that was made.
pub(super) struct Made {
    pub(super) number: u32,
    pub(super) max: u32,
    pub(super) took: Duration,
    pub(super) outcome: Outcome,
}

impl Scribe {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal }
    }

    pub(super) fn received(&self, event: &Event, delivery: &Delivery, routed: Vec<Routed>, not_subscribed: u32) {
        self.journal.note(|| {
            of(
                event,
                What::Received(Received {
                    subject: event.subject.as_deref().map(Into::into),
                    time: event.time.as_deref().map(Into::into),
                    exchange: delivery.exchange.as_str().into(),
                    routing_key: delivery.routing_key.as_str().into(),
                    redelivered: delivery.redelivered,
                    bytes: delivery.message.body.len() as u64,
                    routed,
                    not_subscribed,
                }),
            )
        });
    }

    pub(super) fn duplicate(&self, event: &Event) {
        self.journal.note(|| of(event, What::Duplicate));
    }

    pub(super) fn undecodable(&self, delivery: &Delivery, trail: &Trail, fault: &Fault) {
        self.journal.note(|| Record {
            at: now(),
            id: crate::event::id_of_body(&delivery.message.body).into(),
            source: trail.exchange.as_str().into(),
            event_type: "".into(),
            what: What::Undecodable {
                code: fault.code.as_str().into(),
                reason: bounded(&fault.reason),
                exchange: trail.exchange.as_str().into(),
                routing_key: trail.routing_key.as_str().into(),
                bytes: delivery.message.body.len() as u64,
            },
        });
    }

    pub(super) fn spilled(&self, event: &Event, runner: &Runner, refusal: Refusal) {
        let why = match refusal {
            Refusal::Busy => SpillReason::Busy,
            Refusal::Unwell => SpillReason::Unwell,
            Refusal::NotYet(_) | Refusal::GivenBack => SpillReason::Paced,
        };
        self.journal.note(|| of(event, What::Spilled { plugin: (*runner.name).into(), why }));
    }

    pub(super) fn attempted(&self, event: &Event, runner: &Runner, trail: &Trail, made: Made, next: Next) {
        self.journal.note(|| {
            let (outcome, reason) = match made.outcome {
                Outcome::Done(note) => (Recorded::Done, note),
                Outcome::Skipped(reason) => (Recorded::Skipped, Some(reason)),
                Outcome::Retry { fault, .. } => (Recorded::Retry(fault.code.into()), Some(fault.reason)),
                Outcome::Reject(fault) => (Recorded::Reject(fault.code.into()), Some(fault.reason)),
                Outcome::Misconfigured(fault) => (Recorded::Misconfigured, Some(fault.reason)),
            };
            of(
                event,
                What::Attempted(Attempted {
                    plugin: (*runner.name).into(),
                    number: made.number,
                    max: made.max,
                    round: trail.round,
                    first_at: trail.round_at,
                    took_micros: u64::try_from(made.took.as_micros()).unwrap_or(u64::MAX),
                    outcome,
                    reason: reason.map(|reason| bounded(&reason)),
                    next,
                    log: Vec::new(),
                }),
            )
        });
    }
}

fn of(event: &Event, what: What) -> Record {
    Record {
        at: now(),
        id: event.id.as_str().into(),
        source: event.source.as_str().into(),
        event_type: event.event_type.as_str().into(),
        what,
    }
}

fn bounded(text: &str) -> Box<str> {
    match text.char_indices().nth(REASON_CHARACTERS_MAX) {
        Some((end, _)) => text[..end].into(),
        None => text.into(),
    }
}
