//! The scribe writes down what delivery does, in the journal.
//!
//! What it says has happened: it is told after the broker has confirmed where a delivery went.

use std::iter::Map;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker::Delivery;

use crate::capability::{Beginning, SeenLine};
use crate::delivery::clock::now;
use crate::delivery::policy::{Fault, Outcome};
use crate::delivery::route::{Routing, Subscribed};
use crate::delivery::runner::Runner;
use crate::delivery::trail::Trail;
use crate::event::Event;
use crate::journal::{
    Attempted, Journal, Line, Next, Received, Record, Recorded, Routed, Rule, SpillReason, Then, What,
};

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
    log: Beginning,
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
        log: Beginning,
    ) -> Option<Made> {
        if !self.is_on() {
            return None;
        }
        let (outcome, reason) = match outcome {
            Outcome::Done(note) => (Recorded::Done, note.as_ref()),
            Outcome::Skipped(reason) => (Recorded::Skipped, Some(reason)),
            Outcome::Retry { fault, .. } | Outcome::MachineFault(fault) => {
                (Recorded::Retry(fault.code.as_str().into()), Some(&fault.reason))
            }
            Outcome::Reject(fault) => (Recorded::Reject(fault.code.as_str().into()), Some(&fault.reason)),
            Outcome::Misconfigured(fault) => (Recorded::Misconfigured, Some(&fault.reason)),
        };
        Some(Made { round, number, max, took, outcome, reason: reason.map(|reason| bounded(reason).into()), log })
    }

    /// Tells it, unless that is done.
    pub(super) fn received(&self, coming: &Coming<'_>) {
        if coming.is_news() {
            self.journal.note(|| coming.record());
        }
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
        // It may have been an event by the rules of then.
        let known = trail.recipient.as_ref().map(|recipient| recipient.event_id.clone());
        let own = || delivery.message.properties.message_id.clone().filter(|id| !id.is_empty());
        let id = known.or_else(own).unwrap_or_else(|| crate::event::id_of_body(&delivery.message.body));
        self.journal.note(|| Lent {
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

    pub(super) fn spilled(&self, coming: &Coming<'_>, runner: &Runner, why: SpillReason) {
        self.received(coming);
        self.journal.note(|| of(now(), coming.event, What::Spilled { plugin: &runner.name, why }));
    }

    /// It was not yet routed when it came, and the plugin does not want it.
    pub(super) fn declined(&self, event: &Event, runner: &Runner, why: &str) {
        self.journal.note(|| of(now(), event, What::Declined { plugin: &runner.name, why: bounded(why) }));
    }

    /// `coming`: of a first attempt, how the event came.
    pub(super) fn attempted(
        &self,
        at: i64,
        event: &Event,
        coming: Option<&Coming<'_>>,
        runner: &Runner,
        made: Option<Made>,
        next: Next<&'static str>,
    ) {
        let Some(Made { round, number, max, took, outcome, reason, log }) = made else { return };
        let what = || {
            What::Attempted(Attempted {
                plugin: &*runner.name,
                number,
                max,
                round: round.number,
                first_at: round.began_at,
                took_micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                outcome: match &outcome {
                    Recorded::Done => Recorded::Done,
                    Recorded::Skipped => Recorded::Skipped,
                    Recorded::Retry(code) => Recorded::Retry(&**code),
                    Recorded::Reject(code) => Recorded::Reject(&**code),
                    Recorded::Misconfigured => Recorded::Misconfigured,
                },
                reason: reason.as_deref(),
                next,
                log: lines(&log),
                log_beyond: log.beyond() as u64,
            })
        };
        match coming.filter(|coming| coming.is_news()) {
            Some(coming) => self.journal.note_both(|| (coming.record(), Then { at, what: what() })),
            None => self.journal.note(|| of(at, event, what())),
        }
    }
}

/// How an event came, and who gets it. It is told once: with the first attempt, if that has ended as soon as it began, or
/// by itself.
pub(super) struct Coming<'a> {
    at: i64,
    event: &'a Event,
    delivery: &'a Delivery,
    routing: &'a Routing,
    is_told: AtomicBool,
}

impl<'a> Coming<'a> {
    /// `at`: when it was taken.
    pub(super) fn new(at: i64, event: &'a Event, delivery: &'a Delivery, routing: &'a Routing) -> Self {
        Self { at, event, delivery, routing, is_told: AtomicBool::new(false) }
    }

    /// Whether it is to be told now.
    fn is_news(&self) -> bool {
        // All who tell it are of one task.
        !self.is_told.swap(true, Ordering::Relaxed)
    }

    fn record(&self) -> Lent<'a> {
        let Self { event, delivery, routing, .. } = self;
        of(
            self.at,
            event,
            What::Received(Received {
                subject: event.subject.as_deref(),
                time: event.time.as_deref(),
                exchange: &delivery.exchange,
                routing_key: &delivery.routing_key,
                redelivered: delivery.redelivered,
                bytes: delivery.message.body.len() as u64,
                routed: routes(routing),
                not_subscribed: routing.not_subscribed,
            }),
        )
    }
}

/// A record of what others have.
type Lent<'a> = Record<&'a str, Routes<'a>, Lines<'a>>;
type Routes<'a> = Map<slice::Iter<'a, Subscribed>, fn(&'a Subscribed) -> Routed<&'a str>>;
type Lines<'a> = Map<slice::Iter<'a, SeenLine>, fn(&'a SeenLine) -> Line<&'a str>>;

fn of<'a>(at: i64, event: &'a Event, what: What<&'a str, Routes<'a>, Lines<'a>>) -> Lent<'a> {
    Lent { at, id: &event.id, source: &event.source, event_type: &event.event_type, what }
}

fn routes(routing: &Routing) -> Routes<'_> {
    routing.subscribed.iter().map(|Subscribed { runner, rule }| {
        let rule = match rule {
            Rule::Everything => Rule::Everything,
            Rule::Subscription(rule) => Rule::Subscription(&**rule),
            Rule::Filtered(rule) => Rule::Filtered(&**rule),
            Rule::AboutItself => Rule::AboutItself,
            Rule::NotYetRouted => Rule::NotYetRouted,
        };
        Routed { plugin: &runner.name, rule }
    })
}

fn lines(log: &Beginning) -> Lines<'_> {
    log.lines().iter().map(|SeenLine { level, message, fields }| Line { level, message, fields: fields.as_deref() })
}

fn bounded(text: &str) -> &str {
    match text.char_indices().nth(REASON_CHARACTERS_MAX) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
