//! The delivery status: facts that delivery publishes about itself. Delivery writes them and knows nothing of
//! their readers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{Broker, BrokerUrl};
use jiff::Timestamp;

use crate::stall::SourceProgress;

/// The status of delivery. It outlives sessions.
#[derive(Default)]
pub struct DeliveryStatus {
    state: Mutex<ConnectionState>,
    sessions: AtomicU64,
}

#[derive(Default)]
struct ConnectionState {
    session: Option<Connected>,
    away: Option<String>,
}

/// An open session with the broker.
struct Connected {
    broker: Broker,
    since: Timestamp,
    progress: Arc<SourceProgress>,
}

/// A snapshot of the delivery status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryState {
    /// The broker's URL and the start of the session, if one is open.
    pub connected: Option<(BrokerUrl, Timestamp)>,
    /// Why no session is open, if an attempt failed.
    pub away: Option<String>,
    /// Whether the source's queue is being consumed.
    pub is_consuming: bool,
    /// Whether the prefetch window is full of unsettled messages and none is being settled.
    pub is_stalled: bool,
    /// Messages of the source that are taken and not settled.
    pub unacknowledged: u64,
    /// Sessions opened since the start.
    pub sessions: u64,
}

impl DeliveryStatus {
    /// Marks the session as open until the returned guard is dropped.
    pub(super) fn opened(&self, broker: Broker, progress: Arc<SourceProgress>) -> OpenSession<'_> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let session = Connected { broker, since: Timestamp::now(), progress };
        *self.state() = ConnectionState { session: Some(session), away: None };
        OpenSession(self)
    }

    /// Records why there is no session.
    pub fn away(&self, why: String) {
        self.state().away = Some(why);
    }

    pub fn look(&self) -> DeliveryState {
        let state = self.state();
        let progress = state.session.as_ref().map(|session| &session.progress);
        DeliveryState {
            connected: state.session.as_ref().map(|session| (session.broker.url().clone(), session.since)),
            away: state.away.clone(),
            is_consuming: progress.is_some_and(|progress| progress.is_consuming()),
            is_stalled: progress.is_some_and(|progress| progress.is_stalled()),
            unacknowledged: progress.map_or(0, |progress| progress.unsettled()),
            sessions: self.sessions.load(Ordering::Relaxed),
        }
    }

    /// Returns the open session, for queries about its queues.
    pub fn broker(&self) -> Option<Broker> {
        self.state().session.as_ref().map(|session| session.broker.clone())
    }

    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session counts as open for as long as this lives.
pub(super) struct OpenSession<'v>(&'v DeliveryStatus);

impl Drop for OpenSession<'_> {
    fn drop(&mut self) {
        self.0.state().session = None;
    }
}
