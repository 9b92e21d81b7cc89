//! The worker sees one delivery through: attempt, decision, settlement. It serves first attempts
//! and those from a plugin's backlog alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Broker, BrokerError, Delivery, Message, Source};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::delivery::clock::{self, between};
use crate::delivery::entry::{Origin, Refusal};
use crate::delivery::herald::Herald;
use crate::delivery::policy::{Fault, Settlement, decide};
use crate::delivery::quarantine::{Caution, Form, Verdict};
use crate::delivery::runner::{Pass, Runner};
use crate::delivery::scribe::{Coming, Round, Scribe};
use crate::delivery::settle::{Landed, Onward, pass_on, write_dead};
use crate::delivery::trail::{PREFIX, Recipient, Trail};
use crate::delivery::unreadable;
use crate::event::Event;
use crate::journal::Next;
use crate::meters::{GivenUp, HostMeters, SpillReason};
use crate::plugin::Attempt;
use crate::spans::{Begun, Spans};

/// Headers that a plugin is shown, and bytes of each; the rest is for the broker.
const HEADERS_SHOWN_MAX: usize = 64;

/// The header of a dead letter with the message's properties, where they could not be carried as such.
const ORIGINAL_PROPERTIES: &str = "x-original-properties";

/// What every delivery needs.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) broker: Broker,
    pub(super) source: Arc<Source>,
    pub(super) herald: Herald,
    pub(super) scribe: Scribe,
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
        coming: &Coming<'_>,
        delivery: &Delivery,
        trail: &Trail,
    ) -> Result<(), BrokerError> {
        match runner.enter(Origin::Source, &CancellationToken::new()).await {
            Ok(pass) => self.attempt(runner, pass, event, Some(coming), delivery, trail).await,
            Err(refusal) => self.spill(runner, event, coming, delivery, trail.clone(), refusal.into()).await,
        }
    }

    /// Puts an event for a plugin that has not been loaded into its queue, marked as not yet routed.
    pub(super) async fn keep_unrouted(
        &self,
        runner: &Arc<Runner>,
        event: &Event,
        coming: &Coming<'_>,
        delivery: &Delivery,
        trail: &Trail,
    ) -> Result<(), BrokerError> {
        let trail = Trail { not_yet_routed: true, ..trail.clone() };
        self.spill(runner, event, coming, delivery, trail, SpillReason::NotLoaded).await
    }

    async fn spill(
        &self,
        runner: &Arc<Runner>,
        event: &Event,
        coming: &Coming<'_>,
        delivery: &Delivery,
        trail: Trail,
        why: SpillReason,
    ) -> Result<(), BrokerError> {
        let trail = Trail { recipient: Some(recipient(runner, event)), ..trail };
        debug!(plugin = &*runner.name, event_id = event.id, why = why.as_str(), "spilled");
        let spill = Onward::Spill { plugin: &runner.name };
        let landed = Box::pin(pass_on(&self.broker, &self.source, &delivery.message, &trail, spill)).await?;
        if let Landed::Dead(fault) = landed {
            self.scribe.received(coming);
            self.scribe.undecodable(delivery, &Trail { fault: Some(fault.clone()), ..trail });
            could_not_pass_on(runner, &event.id, &fault);
            return Ok(());
        }
        runner.meters.spilled(why);
        self.scribe.spilled(coming, runner, why);
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
            Ok(pass) => self.attempt(runner, pass, event, None, delivery, trail).await.map(|()| Seen::Through),
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

    async fn attempt(
        &self,
        runner: &Arc<Runner>,
        pass: Pass,
        event: &Event,
        coming: Option<&Coming<'_>>,
        delivery: &Delivery,
        trail: &Trail,
    ) -> Result<(), BrokerError> {
        let retry = pass.plugin().policies.retry;
        let number = trail.attempts.saturating_add(1);
        // Its age is counted from the first attempt: it may have waited for days that were not its fault.
        let round_at = if trail.attempts == 0 { clock::now() } else { trail.round_at };
        let mut span = self.spans.attempt(Begun {
            plugin: &runner.name,
            number,
            max: retry.attempts_max,
            message: &delivery.message,
            event,
            cause: trail.trace.as_deref(),
        });
        // If it was put into its queue by one who makes no spans, it is one trace from now on.
        let trace = if trail.trace.is_none() { span.as_cause() } else { None };
        let attempt = Attempt {
            number,
            max: retry.attempts_max,
            idempotency_key: event.idempotency_key(&runner.name),
            transport: transport(delivery, trail),
            within: span.within(),
        };
        let began = Instant::now();
        let (outcome, change, log) = pass.attempt(event, attempt, self.scribe.is_on()).await;
        let now = clock::now();
        let took = began.elapsed();
        runner.meters.attempted(outcome.ended(), took);
        let round = Round { number: trail.round, began_at: round_at };
        let made = self.scribe.made(round, number, retry.attempts_max, took, &outcome, log);
        span.note("notify.outcome", outcome.ended().as_str());
        match outcome.fault() {
            Some(fault) => span.failed(&fault.code, &fault.reason),
            None => span.done(),
        }
        let settlement = decide(outcome, number, between(round_at, now), &retry, fastrand::f64());
        if let Settlement::DeadLetter { why, .. } = &settlement {
            span.note("notify.given_up", why.as_str());
        }
        drop(span);
        if let Some(change) = change {
            // What is rare has a place of its own, so that what is not is small.
            Box::pin(self.herald.announce(&self.broker, &self.source, runner, change, settlement.fault())).await;
        }
        let (plugin, event_id, event_type) = (&*runner.name, &event.id, &event.event_type);
        let (onward, next, attempts, given_up) = match &settlement {
            Settlement::Done => {
                debug!(plugin, event_id, attempt = number, "done");
                self.scribe.attempted(now, event, coming, runner, made, Next::Nothing);
                return Ok(());
            }
            Settlement::RetryLater { fault, delay } => {
                let (max, wait) = (retry.attempts_max, Wait(*delay));
                info!(
                    plugin,
                    event_id,
                    code = fault.code,
                    "attempt {number} of {max} failed, next in {wait}: {}",
                    fault.reason
                );
                (Onward::Later { plugin, delay: *delay }, Next::Attempt(after(now, *delay)), number, None)
            }
            Settlement::AgainLater { fault, delay } => {
                let wait = Wait(*delay);
                info!(plugin, event_id, code = fault.code, "not done, tried again in {wait}: {}", fault.reason);
                (Onward::Later { plugin, delay: *delay }, Next::Attempt(after(now, *delay)), trail.attempts, None)
            }
            Settlement::DeadLetter { fault, why } => {
                let why = why.as_str();
                warn!(
                    plugin,
                    event_id,
                    event_type,
                    code = fault.code,
                    attempts = number,
                    why,
                    "dead-lettered: {}",
                    fault.reason
                );
                (Onward::Dead, Next::DeadLetter(why), number, Some(why.to_owned()))
            }
            Settlement::Pause(_) => (Onward::Spill { plugin }, Next::Held, trail.attempts, None),
        };
        let trail = Trail {
            recipient: Some(recipient(runner, event)),
            attempts,
            fault: settlement.fault().cloned(),
            given_up,
            last_at: now,
            round_at,
            trace: trail.trace.clone().or(trace),
            ..trail.clone()
        };
        let passed_on = Box::pin(pass_on(&self.broker, &self.source, &delivery.message, &trail, onward)).await;
        let next = count_landing(runner, event_id, &passed_on, &settlement, next);
        self.scribe.attempted(clock::now(), event, coming, runner, made, next);
        passed_on.map(|_| ())
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
        self.scribe.undecodable(delivery, &trail);
        Ok(())
    }
}

/// In milliseconds since 1970.
fn after(now: i64, delay: Duration) -> i64 {
    now.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))
}

/// Counts a settlement by where its copy has landed, and returns what comes next: `next`, if it landed where it was meant to.
fn count_landing(
    runner: &Runner,
    event_id: &str,
    passed_on: &Result<Landed, BrokerError>,
    settlement: &Settlement,
    next: Next<&'static str>,
) -> Next<&'static str> {
    match (passed_on, settlement) {
        (Err(_), _) => return Next::Unsettled,
        (Ok(Landed::Dead(fault)), _) => {
            could_not_pass_on(runner, event_id, fault);
            return Next::DeadLetter(GivenUp::Inexpressible.as_str());
        }
        (Ok(Landed::AsMeant), Settlement::DeadLetter { why, .. }) => runner.meters.gave_up(*why),
        (Ok(Landed::AsMeant), Settlement::Pause(_)) => runner.meters.spilled(SpillReason::Misconfigured),
        (Ok(Landed::AsMeant), Settlement::Done | Settlement::RetryLater { .. } | Settlement::AgainLater { .. }) => {}
    }
    next
}

fn could_not_pass_on(runner: &Runner, event_id: &str, fault: &Fault) {
    runner.meters.gave_up(GivenUp::Inexpressible);
    warn!(plugin = &*runner.name, event_id, code = fault.code, "dead-lettered: {}", fault.reason);
}

fn recipient(runner: &Runner, event: &Event) -> Recipient {
    Recipient {
        plugin: runner.name.to_string(),
        event_id: event.id.clone(),
        event_type: event.event_type.clone(),
        idempotency_key: event.idempotency_key(&runner.name),
    }
}
/// How the message travelled, for plugins that care.
fn transport(delivery: &Delivery, trail: &Trail) -> Vec<(String, String)> {
    let mut attributes = vec![
        ("amqp.exchange".to_owned(), trail.exchange.clone()),
        ("amqp.routing-key".to_owned(), trail.routing_key.clone()),
        ("amqp.redelivered".to_owned(), delivery.redelivered.to_string()),
    ];
    let headers = delivery.message.properties.headers.iter().filter(|(name, _)| !name.starts_with(PREFIX));
    let shown = headers.filter_map(|(name, value)| Some((format!("amqp.header.{name}"), value.to_text()?)));
    attributes.extend(shown.take(HEADERS_SHOWN_MAX));
    attributes
}

/// A length of time as people say it.
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
