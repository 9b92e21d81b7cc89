//! The resources that one attempt used.

use std::time::Duration;

use crate::capability::Calls;
use crate::cpu_slices::EPOCH_INTERVAL;
use crate::instance::Guest;

/// The resources and limits that an attempt used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub calls: Calls,
    /// Linear memory in bytes. It only grows, so its final size is its peak.
    pub memory_bytes: usize,
    /// Time spent computing, in ticks of the engine's clock that the guest has met. Does not grow while others have
    /// the processor.
    pub(crate) computed: Duration,
}

impl Usage {
    pub(super) fn of(guest: &mut Guest) -> Self {
        let exchanges = guest.host.wasi_exchanges();
        if exchanges > 0 {
            guest.host.calls.add("wasi:http.handle", exchanges);
        }
        let (calls, memory_bytes) = (std::mem::take(&mut guest.host.calls), guest.limiter.memory_bytes());
        Self { calls, memory_bytes, computed: EPOCH_INTERVAL.saturating_mul(guest.ticks) }
    }
}
