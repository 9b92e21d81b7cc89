//! Spans describe work on an event for a tracing system: a received message, an attempt, a call out of the sandbox.
//! Each span is a child of its cause; the first one is a child of the publisher's.
//!
//! Names and attributes follow OpenTelemetry's semantic conventions where there are some; `docs/tracing.md` lists
//! them. Without tracing all of this costs one check of an `Option`. This module does not know where spans are
//! exported to. No event data and no secret ever enters a span.

mod span;

use std::time::SystemTime;

use broker::{Message, Value};
use event::Event;
use event::trace_context::{self, PARENT, STATE};
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, SpanKind};
use opentelemetry_sdk::trace::SdkTracer;

pub use crate::spans::span::{Span, Within};

/// Maximum bytes of an attribute whose text comes from outside, such as an event's id.
const TEXT_BYTES_MAX: usize = 512;

/// Creates spans, or none if tracing is off.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<SdkTracer>);

/// A message that was taken from the source queue.
#[derive(Clone, Copy)]
pub struct Taken<'a> {
    /// `rabbitmq` or `sqlite`.
    pub system: &'static str,
    pub queue: &'a str,
    pub routing_key: &'a str,
    pub message: &'a Message,
    /// `None` if the message is not an event.
    pub event: Option<&'a Event>,
    pub since: Option<SystemTime>,
}

/// An attempt that begins.
#[derive(Clone, Copy)]
pub struct Begun<'a> {
    pub plugin: &'a str,
    pub number: u32,
    pub max: u32,
    pub message: &'a Message,
    pub event: &'a Event,
    /// The cause as a `traceparent`, from the message's delivery headers.
    pub cause: Option<&'a str>,
}

impl Spans {
    pub fn by(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// Returns the current time if spans are wanted.
    pub fn now(&self) -> Option<SystemTime> {
        self.0.as_ref().map(|_| SystemTime::now())
    }

    /// Starts a span that lasts from receiving a message until it is settled.
    pub fn receive(&self, taken: Taken<'_>) -> Span {
        let Some(tracer) = &self.0 else { return Span::default() };
        let cause = published(taken.message, taken.event);
        let mut span = Span::start(tracer, SpanKind::Consumer, "receive", cause.as_ref(), taken.since);
        span.describe(|| {
            let mut attributes = vec![
                KeyValue::new("messaging.system", taken.system),
                KeyValue::new("messaging.operation.name", "receive"),
                KeyValue::new("messaging.operation.type", "process"),
                text("messaging.destination.name", taken.queue),
                text("messaging.rabbitmq.destination.routing_key", taken.routing_key),
                number("messaging.message.body.size", taken.message.body.len()),
            ];
            if let Some(event) = taken.event {
                attributes.push(text("messaging.message.id", &event.id));
                attributes.extend(of_event(event));
            }
            (format!("receive {}", cut(taken.queue)), attributes)
        });
        span
    }

    /// Starts a span that lasts from calling a plugin until it has answered.
    pub fn attempt(&self, begun: Begun<'_>) -> Span {
        let Some(tracer) = &self.0 else { return Span::default() };
        let published = published(begun.message, Some(begun.event));
        let told = begun.cause.and_then(|parent| trace_context::parse(parent, None));
        let cause = match (told, published) {
            (Some(told), Some(published)) => Some(SpanContext::new(
                told.trace_id(),
                told.span_id(),
                told.trace_flags(),
                true,
                published.trace_state().clone(),
            )),
            (told, published) => told.or(published),
        };
        let mut span = Span::start(tracer, SpanKind::Internal, "attempt", cause.as_ref(), None);
        span.describe(|| {
            let mut attributes = vec![
                text("notify.plugin", begun.plugin),
                number("notify.attempt", begun.number),
                number("notify.attempts_max", begun.max),
            ];
            attributes.extend(of_event(begun.event));
            (format!("attempt {}", begun.plugin), attributes)
        });
        span
    }
}

/// Returns the publisher's span. The message's headers describe the hop to this queue and are the nearer cause. The
/// event's extension attributes may describe an earlier hop.
fn published(message: &Message, event: Option<&Event>) -> Option<SpanContext> {
    let header = |name: &str| message.properties.headers.get(name).and_then(Value::to_text);
    let of_headers = header(PARENT).and_then(|parent| trace_context::parse(&parent, header(STATE).as_deref()));
    of_headers.or_else(|| {
        let event = event?;
        trace_context::parse(event.extension(PARENT)?, event.extension(STATE))
    })
}

fn of_event(event: &Event) -> impl Iterator<Item = KeyValue> {
    let required = [
        text("cloudevents.event_id", &event.id),
        text("cloudevents.event_source", &event.source),
        text("cloudevents.event_type", &event.event_type),
    ];
    required.into_iter().chain(event.subject.as_deref().map(|subject| text("cloudevents.event_subject", subject)))
}

fn text(name: &'static str, value: &str) -> KeyValue {
    KeyValue::new(name, cut(value).to_owned())
}

fn number(name: &'static str, value: impl TryInto<i64>) -> KeyValue {
    KeyValue::new(name, value.try_into().unwrap_or(i64::MAX))
}

/// Truncates text from outside, which may be of any length.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests;
