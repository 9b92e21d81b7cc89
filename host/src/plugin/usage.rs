//! What one attempt used.

use crate::plugin::Guest;

/// Calls back into the host, by interface and function, in the order of their first ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls(Vec<(&'static str, u64)>);

impl Calls {
    /// `log.write`, `http.send`, …
    pub(crate) fn count(&mut self, function: &'static str) {
        self.add(function, 1);
    }

    fn add(&mut self, function: &'static str, calls: u64) {
        // A handful of functions: looking through them is cheaper than a map.
        match self.0.iter_mut().find(|(name, _)| *name == function) {
            Some((_, count)) => *count += calls,
            None => self.0.push((function, calls)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }
}

/// What an attempt used of the host and of its limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) calls: Calls,
    /// Linear memory. It only grows, so that its end is its peak.
    pub(crate) memory_bytes: usize,
}

impl Usage {
    pub(super) fn of(guest: &mut Guest) -> Self {
        let exchanges = guest.wasi_exchanges();
        if exchanges > 0 {
            guest.calls.add("wasi:http.handle", exchanges);
        }
        Self { calls: std::mem::take(&mut guest.calls), memory_bytes: guest.limiter.memory_bytes() }
    }
}
