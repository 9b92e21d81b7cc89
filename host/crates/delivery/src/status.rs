//! Vitals are what delivery tells of itself, for whoever wants to know how the host is. Delivery writes them down
//! and asks nothing of those who read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::{Broker, BrokerUrl};
use jiff::Timestamp;

use crate::stall::Progress;

/// They outlive sessions.
#[derive(Default)]
pub struct DeliveryStatus {
    state: Mutex<State>,
    sessions: AtomicU64,
}

#[derive(Default)]
struct State {
    session: Option<Connected>,
    away: Option<String>,
}

/// A session with the broker that is open.
struct Connected {
    broker: Broker,
    since: Timestamp,
    progress: Arc<Progress>,
}

/// How delivery is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryState {
    /// Of the session that is open: where it is, and since when.
    pub connected: Option<(BrokerUrl, Timestamp)>,
    /// Why there is none, if one was tried.
    pub away: Option<String>,
    /// The source's queue is taken from.
    pub is_consuming: bool,
    /// All that the host may hold is unsettled, and nothing is being settled.
    pub is_stalled: bool,
    /// Messages of the source that were taken and not settled.
    pub unacknowledged: u64,
    /// Sessions that were opened since the start.
    pub sessions: u64,
}

impl DeliveryStatus {
    /// Counts as connected for as long as the answer lives.
    pub(super) fn opened(&self, broker: Broker, progress: Arc<Progress>) -> Open<'_> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let session = Connected { broker, since: Timestamp::now(), progress };
        *self.state() = State { session: Some(session), away: None };
        Open(self)
    }

    /// There is no session, for this reason.
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

    /// The session that is open, to ask it what is in its queues.
    pub fn broker(&self) -> Option<Broker> {
        self.state().session.as_ref().map(|session| session.broker.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session counts as open for as long as this lives.
pub(super) struct Open<'v>(&'v DeliveryStatus);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.state().session = None;
    }
}
