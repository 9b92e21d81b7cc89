//! What one attempt used.

use std::time::Duration;

use crate::Guest;
use crate::engine::EPOCH_INTERVAL;

/// Calls back into the host, by interface and function, in the order of their first ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(Vec<(&'static str, u64)>);

impl Calls {
    /// `log.write`, `http.send`, …
    pub fn count(&mut self, function: &'static str) {
        self.add(function, 1);
    }

    fn add(&mut self, function: &'static str, calls: u64) {
        // A handful of functions: looking through them is cheaper than a map.
        match self.0.iter_mut().find(|(name, _)| *name == function) {
            Some((_, count)) => *count += calls,
            None => self.0.push((function, calls)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }
}

/// What an attempt used of the host and of its limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub calls: Calls,
    /// Linear memory. It only grows, so that its end is its peak.
    pub memory_bytes: usize,
    /// How long it has computed, by the ticks of the engine's clock that it has met: none while others had the processor.
    pub(crate) computed: Duration,
}

impl Usage {
    pub(super) fn of(guest: &mut Guest) -> Self {
        let exchanges = guest.wasi_exchanges();
        if exchanges > 0 {
            guest.calls.add("wasi:http.handle", exchanges);
        }
        let (calls, memory_bytes) = (std::mem::take(&mut guest.calls), guest.limiter.memory_bytes());
        Self { calls, memory_bytes, computed: EPOCH_INTERVAL.saturating_mul(guest.ticks) }
    }
}
