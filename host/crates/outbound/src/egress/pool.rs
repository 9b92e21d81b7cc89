//! The pool keeps connections that are idle, for the next exchange with the same origin. Each is either here, idle and
//! whole, or in the hands of one exchange.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use config::Origin;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::egress::connection::Connection;

/// Connections that one plugin keeps idle, to all its origins together.
const IDLE_MAX: usize = 64;
/// How long one is kept. Servers close theirs after 5 s and more.
pub(super) const IDLE_TIME_MAX: Duration = Duration::from_secs(20);

/// The idle connections of one version of a plugin. They end with it.
pub(super) struct Pool {
    idle_time: Duration,
    shared: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The one that has been idle for the longest time first.
    idle: VecDeque<Idle>,
    /// Ends those that nobody asked for.
    sweeper: Option<AbortOnDropHandle<()>>,
}

struct Idle {
    origin: Arc<Origin>,
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(super) fn new(idle_time: Duration) -> Self {
        Self { idle_time, shared: Arc::default() }
    }

    /// The one that was used last, if there is any that still works.
    pub(super) async fn take(&self, origin: &Origin) -> Option<Connection> {
        loop {
            let mut taken = {
                let mut state = lock(&self.shared);
                let last = state.idle.iter().rposition(|idle| *idle.origin == *origin)?;
                state.idle.remove(last)?
            };
            if taken.since.elapsed() < self.idle_time && taken.connection.is_usable().await {
                return Some(taken.connection);
            }
        }
    }

    pub(super) fn put(&self, origin: Arc<Origin>, connection: Connection) {
        let mut state = lock(&self.shared);
        if state.idle.len() >= IDLE_MAX {
            state.idle.pop_front();
        }
        state.idle.push_back(Idle { origin, connection, since: Instant::now() });
        if state.sweeper.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
            let sweeper = tokio::spawn(sweep(Arc::downgrade(&self.shared), self.idle_time));
            state.sweeper = Some(AbortOnDropHandle::new(sweeper));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.shared).idle.len()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until nothing is idle.
async fn sweep(shared: Weak<Mutex<State>>, idle_time: Duration) {
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else { return };
            let mut state = lock(&shared);
            while state.idle.front().is_some_and(|idle| idle.since.elapsed() >= idle_time) {
                state.idle.pop_front();
            }
            let Some(oldest) = state.idle.front() else {
                // The next one to put something here starts another.
                state.sweeper = None;
                return;
            };
            oldest.since + idle_time
        };
        tokio::time::sleep_until(next).await;
    }
}
