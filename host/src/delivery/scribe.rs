//! The scribe writes down what delivery does, in the journal.
//!
//! What it says has happened: it is told after the broker has confirmed where a delivery went.

use std::sync::Arc;
use std::time::Duration;

use broker::Delivery;

use crate::capability::LogLine;
use crate::delivery::clock::now;
use crate::delivery::policy::{Fault, Outcome};
use crate::delivery::runner::Runner;
use crate::delivery::trail::Trail;
use crate::event::Event;
use crate::journal::{Attempted, Journal, Next, Received, Record, Recorded, Routed, Rule, SpillReason, What};

/// Characters of a reason that are kept.
const REASON_CHARACTERS_MAX: usize = 1000;

#[derive(Clone)]
pub(super) struct Scribe {
    journal: Journal,
}

/// The round of an attempt.
#[derive(Clone, Copy)]
pub(super) struct Round {
    pub(super) number: u32,
    /// In milliseconds since 1970.
    pub(super) began_at: i64,
}

/// One attempt that was made, in so far as the journal tells of it.
pub(super) struct Made {
    round: Round,
    number: u32,
    max: u32,
    took: Duration,
    outcome: Recorded,
    reason: Option<Box<str>>,
    log: (Vec<LogLine>, usize),
}

impl Scribe {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal }
    }

    /// Whether anybody reads it.
    pub(super) fn is_on(&self) -> bool {
        self.journal.is_on()
    }

    /// What there will be to tell of an attempt, before anybody else takes the outcome; `None` if nobody reads it.
    pub(super) fn made(
        &self,
        round: Round,
        number: u32,
        max: u32,
        took: Duration,
        outcome: &Outcome,
        log: (Vec<LogLine>, usize),
    ) -> Option<Made> {
        if !self.is_on() {
            return None;
        }
        let (outcome, reason) = match outcome {
            Outcome::Done(note) => (Recorded::Done, note.as_ref()),
            Outcome::Skipped(reason) => (Recorded::Skipped, Some(reason)),
            Outcome::Retry { fault, .. } => (Recorded::Retry(fault.code.as_str().into()), Some(&fault.reason)),
            Outcome::Reject(fault) => (Recorded::Reject(fault.code.as_str().into()), Some(&fault.reason)),
            Outcome::Misconfigured(fault) => (Recorded::Misconfigured, Some(&fault.reason)),
        };
        Some(Made { round, number, max, took, outcome, reason: reason.map(|reason| bounded(reason).into()), log })
    }

    /// `at`: when it was taken.
    pub(super) fn received(
        &self,
        at: i64,
        event: &Event,
        delivery: &Delivery,
        routed: &[Routed<Arc<str>>],
        not_subscribed: u32,
    ) {
        self.journal.note(|| {
            of(
                at,
                event,
                What::Received(Received {
                    subject: event.subject.as_deref(),
                    time: event.time.as_deref(),
                    exchange: &delivery.exchange,
                    routing_key: &delivery.routing_key,
                    redelivered: delivery.redelivered,
                    bytes: delivery.message.body.len() as u64,
                    routed: routed.iter().map(lend).collect(),
                    not_subscribed,
                }),
            )
        });
    }

    pub(super) fn duplicate(&self, event: &Event) {
        self.journal.note(|| of(now(), event, What::Duplicate));
    }

    /// `trail` says what is wrong with it.
    pub(super) fn undecodable(&self, delivery: &Delivery, trail: &Trail) {
        let Some(Fault { code, reason }) = &trail.fault else { return };
        if !self.is_on() {
            return;
        }
        let id = match &trail.recipient {
            // It may have been one by the rules of then.
            Some(recipient) => recipient.event_id.clone(),
            None => crate::event::id_of_body(&delivery.message.body),
        };
        self.journal.note(|| Record {
            at: now(),
            id: &id,
            source: &trail.exchange,
            event_type: "",
            what: What::Undecodable {
                code,
                reason: bounded(reason),
                exchange: &trail.exchange,
                routing_key: &trail.routing_key,
                bytes: delivery.message.body.len() as u64,
            },
        });
    }

    pub(super) fn spilled(&self, event: &Event, runner: &Runner, why: SpillReason) {
        self.journal.note(|| of(now(), event, What::Spilled { plugin: &runner.name, why }));
    }

    pub(super) fn attempted(
        &self,
        at: i64,
        event: &Event,
        runner: &Runner,
        made: Option<Made>,
        next: Next<&'static str>,
    ) {
        let Some(Made { round, number, max, took, outcome, reason, log: (lines, beyond) }) = made else { return };
        self.journal.note(|| {
            of(
                at,
                event,
                What::Attempted(Attempted {
                    plugin: &runner.name,
                    number,
                    max,
                    round: round.number,
                    first_at: round.began_at,
                    took_micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                    outcome: match &outcome {
                        Recorded::Done => Recorded::Done,
                        Recorded::Skipped => Recorded::Skipped,
                        Recorded::Retry(code) => Recorded::Retry(code),
                        Recorded::Reject(code) => Recorded::Reject(code),
                        Recorded::Misconfigured => Recorded::Misconfigured,
                    },
                    reason: reason.as_deref(),
                    next,
                    // Of the beginning of a log, each message has its fields in it.
                    log: lines.iter().map(|line| (line.level, &*line.message)).collect(),
                    log_beyond: beyond as u64,
                }),
            )
        });
    }
}

fn of<'a>(at: i64, event: &'a Event, what: What<&'a str>) -> Record<&'a str> {
    Record { at, id: &event.id, source: &event.source, event_type: &event.event_type, what }
}

fn lend(routed: &Routed<Arc<str>>) -> Routed<&str> {
    let rule = match &routed.rule {
        Rule::Everything => Rule::Everything,
        Rule::Subscription(rule) => Rule::Subscription(&**rule),
        Rule::Filtered(rule) => Rule::Filtered(&**rule),
        Rule::AboutItself => Rule::AboutItself,
    };
    Routed { plugin: &routed.plugin, rule }
}

fn bounded(text: &str) -> &str {
    match text.char_indices().nth(REASON_CHARACTERS_MAX) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
