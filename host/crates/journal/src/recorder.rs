//! Turns delivery's reports into journal records.

use std::iter::Map;
use std::slice;

use broker::Delivery;
use delivery::{
    AttemptReport, DeliveryHeaders, DeliveryObserver, Fault, Next, ReceivedContext, Recorded, Routing, Rule, Subscribed,
};
use event::Event;
use event::clock::now;
use sandbox::capability::{Beginning, SeenLine};

use crate::record::{Attempted, Line, Received, Record, Routed, SpillReason, Then, What};
use crate::writer::Journal;

/// Characters of a reason that are kept.
const REASON_CHARACTERS_MAX: usize = 1000;

impl DeliveryObserver for Journal {
    fn is_on(&self) -> bool {
        Journal::is_on(self)
    }

    fn received(&self, received: &ReceivedContext<'_>) {
        if received.is_news() {
            self.note(|| record_of(received));
        }
    }

    fn duplicate(&self, event: &Event) {
        self.note(|| of(now(), event, What::Duplicate));
    }

    fn undecodable(&self, delivery: &Delivery, delivery_headers: &DeliveryHeaders) {
        let Some(Fault { code, reason }) = &delivery_headers.fault else { return };
        if !self.is_on() {
            return;
        }
        // It may have been an event by the rules of then.
        let known = delivery_headers.recipient.as_ref().map(|recipient| recipient.event_id.clone());
        let own = || delivery.message.properties.message_id.clone().filter(|id| !id.is_empty());
        let id = known.or_else(own).unwrap_or_else(|| event::id_of_body(&delivery.message.body));
        self.note(|| Lent {
            at: now(),
            id: &id,
            source: &delivery_headers.exchange,
            event_type: "",
            what: What::Undecodable {
                code,
                reason: bounded(reason),
                exchange: &delivery_headers.exchange,
                routing_key: &delivery_headers.routing_key,
                bytes: delivery.message.body.len() as u64,
            },
        });
    }

    fn spilled(&self, received: &ReceivedContext<'_>, plugin: &str, why: SpillReason) {
        self.received(received);
        self.note(|| of(now(), received.event, What::Spilled { plugin, why }));
    }

    fn declined(&self, event: &Event, plugin: &str, why: &str) {
        self.note(|| of(now(), event, What::Declined { plugin, why: bounded(why) }));
    }

    fn attempted(&self, report: &AttemptReport<'_>) {
        let AttemptReport { at, event, received, plugin, result, next } = report;
        let what = || {
            What::Attempted(Attempted {
                plugin: *plugin,
                number: result.number,
                max: result.max,
                round: result.round.number,
                first_at: result.round.began_at,
                took_micros: u64::try_from(result.took.as_micros()).unwrap_or(u64::MAX),
                outcome: match &result.outcome {
                    Recorded::Done => Recorded::Done,
                    Recorded::Skipped => Recorded::Skipped,
                    Recorded::Retry(code) => Recorded::Retry(&**code),
                    Recorded::Reject(code) => Recorded::Reject(&**code),
                    Recorded::Misconfigured => Recorded::Misconfigured,
                },
                reason: result.reason.as_deref().map(bounded),
                next: match next {
                    Next::Nothing => Next::Nothing,
                    Next::Attempt(due_at) => Next::Attempt(*due_at),
                    Next::DeadLetter(why) => Next::DeadLetter(*why),
                    Next::Held => Next::Held,
                    Next::Unsettled => Next::Unsettled,
                },
                log: lines(&result.log),
                log_beyond: result.log.beyond() as u64,
            })
        };
        match received.filter(|received| received.is_news()) {
            Some(received) => self.note_both(|| (record_of(received), Then { at: *at, what: what() })),
            None => self.note(|| of(*at, event, what())),
        }
    }
}

fn record_of<'a>(received: &ReceivedContext<'a>) -> Lent<'a> {
    let ReceivedContext { at, event, delivery, routing, .. } = received;
    of(
        *at,
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
