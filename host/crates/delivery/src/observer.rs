//! Delivery reports to an observer what happens to each event. The journal is one such observer; delivery does
//! not know it.
//!
//! Reports describe the past. Each is made after the broker has confirmed where a delivery went.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker::Delivery;
use event::Event;
use sandbox::capability::Beginning;
use telemetry::metrics::SpillReason;

use crate::delivery_headers::DeliveryHeaders;
use crate::policy::Outcome;
use crate::route::Routing;

/// Receives reports about the events of this host. Its methods run on the path of an event, so they must not
/// block.
pub trait DeliveryObserver: Send + Sync {
    /// Returns whether anybody reads the reports. If not, delivery saves the work of preparing them.
    fn is_on(&self) -> bool;

    /// Reports that an event was received and routed. May be called several times for one event; see
    /// [`ReceivedContext::is_news`].
    fn received(&self, received: &ReceivedContext<'_>);

    /// Reports that an event was dropped as a duplicate.
    fn duplicate(&self, event: &Event);

    /// Reports that a message became a dead letter without being handed to a plugin. `headers` has the fault.
    fn undecodable(&self, delivery: &Delivery, headers: &DeliveryHeaders);

    /// Reports that a delivery moved to its plugin's own queue.
    fn spilled(&self, received: &ReceivedContext<'_>, plugin: &str, why: SpillReason);

    /// Reports that an event that was queued unrouted is not for this plugin.
    fn declined(&self, event: &Event, plugin: &str, why: &str);

    /// Reports that an attempt ended and was settled.
    fn attempted(&self, report: &AttemptReport<'_>);
}

impl fmt::Debug for dyn DeliveryObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeliveryObserver")
    }
}

/// One attempt, and the next step of its delivery.
pub struct AttemptReport<'a> {
    /// When it was settled, in milliseconds since 1970.
    pub at: i64,
    pub event: &'a Event,
    /// How the event arrived, for a first attempt.
    pub received: Option<&'a ReceivedContext<'a>>,
    pub plugin: &'a str,
    pub result: &'a AttemptResult,
    pub next: Next<&'static str>,
}

/// The result of an attempt.
pub struct AttemptResult {
    pub round: Round,
    pub number: u32,
    pub max: u32,
    pub took: Duration,
    pub outcome: Recorded<Box<str>>,
    pub reason: Option<Box<str>>,
    pub log: Beginning,
}

/// The round of an attempt.
#[derive(Clone, Copy)]
pub struct Round {
    /// Starts at 1. Each replay of a dead letter begins a new round.
    pub number: u32,
    /// In milliseconds since 1970, by the clock of the host where the round began.
    pub began_at: i64,
}

/// An attempt's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded<Text = Box<str>> {
    Done,
    Skipped,
    /// The fault's code.
    Retry(Text),
    /// The fault's code.
    Reject(Text),
    Misconfigured,
}

impl Recorded {
    /// Converts an outcome. Also returns the reason that the plugin or the host gave for it.
    pub fn of(outcome: &Outcome) -> (Self, Option<&str>) {
        let (recorded, reason) = match outcome {
            Outcome::Done(note) => (Self::Done, note.as_ref()),
            Outcome::Skipped(reason) => (Self::Skipped, Some(reason)),
            Outcome::Retry { fault, .. } | Outcome::MachineFault(fault) => {
                (Self::Retry(fault.code.as_str().into()), Some(&fault.reason))
            }
            Outcome::Reject(fault) => (Self::Reject(fault.code.as_str().into()), Some(&fault.reason)),
            Outcome::Misconfigured(fault) => (Self::Misconfigured, Some(&fault.reason)),
        };
        (recorded, reason.map(String::as_str))
    }
}

/// The next step of a delivery after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<Text = Box<str>> {
    /// Nothing: it is settled.
    Nothing,
    /// Another attempt, not before this time in milliseconds since 1970.
    Attempt(i64),
    /// The dead-letter queue, for this reason in one word.
    DeadLetter(Text),
    /// The queue of the plugin, which is paused.
    Held,
    /// Unknown: the broker was lost before it confirmed. The message is offered again, and the call repeated.
    Unsettled,
}

/// How an event arrived, and which plugins get it.
///
/// It is reported once: together with the first attempt, if that ended at once, and by itself otherwise.
pub struct ReceivedContext<'a> {
    /// When the host received it, in milliseconds since 1970.
    pub at: i64,
    pub event: &'a Event,
    pub delivery: &'a Delivery,
    pub routing: &'a Routing,
    is_reported: AtomicBool,
}

impl<'a> ReceivedContext<'a> {
    pub fn new(at: i64, event: &'a Event, delivery: &'a Delivery, routing: &'a Routing) -> Self {
        Self { at, event, delivery, routing, is_reported: AtomicBool::new(false) }
    }

    /// Returns whether this is the first report of the event. Asking counts as reporting.
    pub fn is_news(&self) -> bool {
        // All reports come from one task, so no ordering is needed.
        !self.is_reported.swap(true, Ordering::Relaxed)
    }
}
