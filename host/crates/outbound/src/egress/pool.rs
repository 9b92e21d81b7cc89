//! A pool of idle connections, for the next exchange with the same origin. A connection is either here, idle and
//! intact, or owned by one exchange.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use config::Origin;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::egress::connection::Connection;

/// Maximum number of idle connections of one plugin, over all its origins.
const IDLE_MAX: usize = 64;
/// Maximum time that a connection is kept idle. Servers close theirs after 5 s or more.
pub(super) const IDLE_TIME_MAX: Duration = Duration::from_secs(20);

/// The idle connections of one version of a plugin. They are closed with it.
pub(super) struct Pool {
    idle_time: Duration,
    shared: Arc<Mutex<PoolState>>,
}

#[derive(Default)]
struct PoolState {
    /// The connection that has been idle the longest comes first.
    idle: VecDeque<Idle>,
    /// The task that closes connections which nobody used in time.
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

    /// Takes the most recently used connection to this origin that still works, if there is one.
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

fn lock(state: &Mutex<PoolState>) -> MutexGuard<'_, PoolState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes connections that were idle for too long, until none is idle.
async fn sweep(shared: Weak<Mutex<PoolState>>, idle_time: Duration) {
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else { return };
            let mut state = lock(&shared);
            while state.idle.front().is_some_and(|idle| idle.since.elapsed() >= idle_time) {
                state.idle.pop_front();
            }
            let Some(oldest) = state.idle.front() else {
                // The next `put` starts another sweeper.
                state.sweeper = None;
                return;
            };
            oldest.since + idle_time
        };
        tokio::time::sleep_until(next).await;
    }
}
