//! Delivery tells an observer what happens to each event. The journal is one; delivery does not know it.
//!
//! A report describes the past: it is made after the broker has confirmed where a delivery went.

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

/// Receives reports about the events of this host. Its methods run on the path of an event: they must not block.
pub trait DeliveryObserver: Send + Sync {
    /// Whether anybody reads the reports. If not, delivery saves itself the work of preparing them.
    fn is_on(&self) -> bool;

    /// An event was received and routed. May be called several times for one event; see [`ReceivedContext::is_news`].
    fn received(&self, received: &ReceivedContext<'_>);

    /// An event was dropped because it came a second time.
    fn duplicate(&self, event: &Event);

    /// A message became a dead letter without being handed to a plugin; `headers` has the fault.
    fn undecodable(&self, delivery: &Delivery, headers: &DeliveryHeaders);

    /// A delivery moved to its plugin's own queue.
    fn spilled(&self, received: &ReceivedContext<'_>, plugin: &str, why: SpillReason);

    /// An event that was not yet routed when it came turned out not to be for this plugin.
    fn declined(&self, event: &Event, plugin: &str, why: &str);

    /// An attempt ended and was settled.
    fn attempted(&self, report: &AttemptReport<'_>);
}

impl fmt::Debug for dyn DeliveryObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeliveryObserver")
    }
}

/// One attempt, and where its delivery went.
pub struct AttemptReport<'a> {
    /// When it was settled, in milliseconds since 1970.
    pub at: i64,
    pub event: &'a Event,
    /// For a first attempt, how the event came.
    pub received: Option<&'a ReceivedContext<'a>>,
    pub plugin: &'a str,
    pub result: &'a AttemptResult,
    pub next: Next<&'static str>,
}

/// What an attempt came to.
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
    /// From 1; each replay of a dead letter begins a new one.
    pub number: u32,
    /// In milliseconds since 1970: on another host, perhaps.
    pub began_at: i64,
}

/// An attempt's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded<Text = Box<str>> {
    Done,
    Skipped,
    /// With the fault's code.
    Retry(Text),
    /// With the fault's code.
    Reject(Text),
    Misconfigured,
}

impl Recorded {
    /// The outcome, and the reason that the plugin or the host gave for it.
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

/// Where a delivery went after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<Text = Box<str>> {
    /// It is settled.
    Nothing,
    /// Another attempt, not before this, in milliseconds since 1970.
    Attempt(i64),
    /// To the dead letters; why, in a word.
    DeadLetter(Text),
    /// Into the queue of the plugin, which is paused.
    Held,
    /// The broker was lost before it had confirmed that: the message comes again, and the call is repeated.
    Unsettled,
}

/// How an event came, and who gets it.
///
/// It is reported once: with the first attempt, if that ended as soon as it began, or by itself.
pub struct ReceivedContext<'a> {
    /// When it was taken, in milliseconds since 1970.
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

    /// Whether this is the first report of it. Asking counts as reporting.
    pub fn is_news(&self) -> bool {
        // All that report it are of one task, so no ordering is needed.
        !self.is_reported.swap(true, Ordering::Relaxed)
    }
}
