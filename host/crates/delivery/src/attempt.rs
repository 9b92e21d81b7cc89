//! One attempt of one delivery: call the plugin, decide, settle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{BrokerError, Delivery};
use config::RetryPolicy;
use event::Event;
use event::clock::{self, between};
use sandbox::Attempt;
use telemetry::metrics::{GivenUp, SpillReason};
use telemetry::spans::{Begun, Span};
use tracing::{debug, info, warn};

use crate::breaker::Change;
use crate::delivery_headers::{DeliveryHeaders, PREFIX};
use crate::observer::{AttemptReport, AttemptResult, Next, ReceivedContext, Recorded, Round};
use crate::permit::Permit;
use crate::policy::{Outcome, Settlement, decide};
use crate::runner::Runner;
use crate::settle::{Forwarded, Onward, pass_on};
use crate::worker::{Worker, could_not_pass_on, recipient};

/// Maximum number of message headers shown to a plugin.
const HEADERS_SHOWN_MAX: usize = 64;

/// One event on its way to one plugin.
pub(super) struct PluginDelivery<'a> {
    pub(super) runner: &'a Arc<Runner>,
    pub(super) event: &'a Event,
    /// How the event arrived, for a first attempt.
    pub(super) received: Option<&'a ReceivedContext<'a>>,
    pub(super) delivery: &'a Delivery,
    pub(super) delivery_headers: &'a DeliveryHeaders,
}

/// A finished call.
struct Called {
    number: u32,
    /// When the round began, in milliseconds since 1970.
    round_at: i64,
    /// When the call ended, in milliseconds since 1970.
    ended_at: i64,
    outcome: Outcome,
    /// The change in the plugin's health, if any.
    change: Option<Change>,
    /// The report for the observer, if there is one.
    result: Option<AttemptResult>,
    span: Span,
    /// The parent span for later attempts, if the delivery had none yet.
    trace: Option<String>,
}

impl Worker {
    pub(super) async fn attempt(&self, one: &PluginDelivery<'_>, permit: Permit) -> Result<(), BrokerError> {
        let retry = permit.plugin().policies.retry;
        let Called { number, round_at, ended_at, outcome, change, result, mut span, trace } =
            self.call(one, permit, &retry).await;
        let settlement = decide(outcome, number, between(round_at, ended_at), &retry, fastrand::f64());
        if let Settlement::DeadLetter { why, .. } = &settlement {
            span.note("notify.given_up", why.as_str());
        }
        drop(span);
        if let Some(change) = change {
            // Rare, so its future is boxed and the common case stays small.
            Box::pin(self.health_events.announce(&self.broker, &self.source, one.runner, change, settlement.fault()))
                .await;
        }
        say(one, number, retry.attempts_max, &settlement);
        let report = |at, next| {
            let Some(result) = &result else { return };
            let PluginDelivery { runner, event, received, .. } = *one;
            self.observer.attempted(&AttemptReport { at, event, received, plugin: &runner.name, result, next });
        };
        let Some((onward, next)) = onward(&one.runner.name, &settlement, ended_at) else {
            report(ended_at, Next::Nothing);
            return Ok(());
        };
        let delivery_headers = DeliveryHeaders {
            recipient: Some(recipient(one.runner, one.event)),
            attempts: if settlement.counts() { number } else { one.delivery_headers.attempts },
            fault: settlement.fault().cloned(),
            given_up: settlement.given_up().map(|why| why.as_str().to_owned()),
            last_at: ended_at,
            round_at,
            trace: one.delivery_headers.trace.clone().or(trace),
            ..one.delivery_headers.clone()
        };
        let passed_on =
            Box::pin(pass_on(&self.broker, &self.source, &one.delivery.message, &delivery_headers, onward)).await;
        let next = count_landing(one.runner, &one.event.id, &passed_on, &settlement, next);
        report(clock::now(), next);
        passed_on.map(|_| ())
    }

    /// Calls the plugin, and records the result in the span and the metrics.
    async fn call(&self, one: &PluginDelivery<'_>, permit: Permit, retry: &RetryPolicy) -> Called {
        let PluginDelivery { runner, event, delivery, delivery_headers, .. } = one;
        let (number, max) = (delivery_headers.attempts.saturating_add(1), retry.attempts_max);
        // Count the age from the first attempt. The delivery may have waited in a queue for days before it.
        let round_at = if delivery_headers.attempts == 0 { clock::now() } else { delivery_headers.round_at };
        let (plugin, message, cause) = (&*runner.name, &delivery.message, delivery_headers.trace.as_deref());
        let mut span = self.spans.attempt(Begun { plugin, number, max, message, event, cause });
        // A host without spans may have queued the delivery, so its trace begins here.
        let trace = if cause.is_none() { span.as_cause() } else { None };
        let attempt = Attempt {
            number,
            max,
            idempotency_key: event.idempotency_key(plugin),
            transport: transport(delivery, delivery_headers),
            within: span.within(),
        };
        let began = Instant::now();
        let (outcome, change, log) = permit.attempt(event, attempt, self.observer.is_on()).await;
        let (ended_at, took) = (clock::now(), began.elapsed());
        runner.metrics.attempted(outcome.ended(), took);
        let result = self.observer.is_on().then(|| {
            let round = Round { number: delivery_headers.round, began_at: round_at };
            let (outcome, reason) = Recorded::of(&outcome);
            let reason = reason.map(Into::into);
            AttemptResult { round, number, max, took, outcome, reason, log }
        });
        span.note("notify.outcome", outcome.ended().as_str());
        match outcome.fault() {
            Some(fault) => span.failed(&fault.code, &fault.reason),
            None => span.done(),
        }
        Called { number, round_at, ended_at, outcome, change, result, span, trace }
    }
}

/// Logs the settlement.
fn say(one: &PluginDelivery<'_>, number: u32, max: u32, settlement: &Settlement) {
    let (plugin, event_id, event_type) = (&*one.runner.name, &one.event.id, &one.event.event_type);
    match settlement {
        Settlement::Done => debug!(plugin, event_id, attempt = number, "done"),
        Settlement::RetryLater { fault, delay } => {
            let (wait, code) = (Wait(*delay), &fault.code);
            info!(plugin, event_id, code, "attempt {number} of {max} failed, next in {wait}: {}", fault.reason);
        }
        Settlement::AgainLater { fault, delay } => {
            let (wait, code) = (Wait(*delay), &fault.code);
            info!(plugin, event_id, code, "not done, tried again in {wait}: {}", fault.reason);
        }
        Settlement::DeadLetter { fault, why } => {
            let (code, why, reason) = (&fault.code, why.as_str(), &fault.reason);
            warn!(plugin, event_id, event_type, code, attempts = number, why, "dead-lettered: {reason}");
        }
        Settlement::Pause(_) => {}
    }
}

/// Returns where the delivery goes next, or `None` if it is settled.
fn onward<'a>(plugin: &'a str, settlement: &Settlement, now: i64) -> Option<(Onward<'a>, Next<&'static str>)> {
    match settlement {
        Settlement::Done => None,
        Settlement::RetryLater { delay, .. } | Settlement::AgainLater { delay, .. } => {
            Some((Onward::Later { plugin, delay: *delay }, Next::Attempt(after(now, *delay))))
        }
        Settlement::DeadLetter { why, .. } => Some((Onward::Dead, Next::DeadLetter(why.as_str()))),
        Settlement::Pause(_) => Some((Onward::Spill { plugin }, Next::Held)),
    }
}

/// Returns the time after a delay, in milliseconds since 1970.
fn after(now: i64, delay: Duration) -> i64 {
    now.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
}

/// Counts a settlement by where its copy went. Returns `next` if that is the intended place, and the actual
/// next step otherwise.
fn count_landing(
    runner: &Runner,
    event_id: &str,
    passed_on: &Result<Forwarded, BrokerError>,
    settlement: &Settlement,
    next: Next<&'static str>,
) -> Next<&'static str> {
    match (passed_on, settlement) {
        (Err(_), _) => return Next::Unsettled,
        (Ok(Forwarded::Dead(fault)), _) => {
            could_not_pass_on(runner, event_id, fault);
            return Next::DeadLetter(GivenUp::Inexpressible.as_str());
        }
        (Ok(Forwarded::AsMeant), Settlement::DeadLetter { why, .. }) => runner.metrics.gave_up(*why),
        (Ok(Forwarded::AsMeant), Settlement::Pause(_)) => runner.metrics.spilled(SpillReason::Misconfigured),
        (Ok(Forwarded::AsMeant), Settlement::Done | Settlement::RetryLater { .. } | Settlement::AgainLater { .. }) => {}
    }
    next
}

/// Describes how the message travelled, for plugins that care.
fn transport(delivery: &Delivery, delivery_headers: &DeliveryHeaders) -> Vec<(String, String)> {
    let mut attributes = vec![
        ("amqp.exchange".to_owned(), delivery_headers.exchange.clone()),
        ("amqp.routing-key".to_owned(), delivery_headers.routing_key.clone()),
        ("amqp.redelivered".to_owned(), delivery.redelivered.to_string()),
    ];
    let headers = delivery.message.properties.headers.iter().filter(|(name, _)| !name.starts_with(PREFIX));
    let shown = headers.filter_map(|(name, value)| Some((format!("amqp.header.{name}"), value.to_text()?)));
    attributes.extend(shown.take(HEADERS_SHOWN_MAX));
    attributes
}

/// A duration formatted for people.
struct Wait(Duration);

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_secs() {
            0..10 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            seconds @ 10..120 => write!(f, "{seconds} s"),
            seconds @ 120..7200 => write!(f, "{} min", seconds / 60),
            seconds => write!(f, "{} h", seconds / 3600),
        }
    }
}
