//! The time of day, as WASI tells it. `std` knows it in plugins that are built for `wasm32-wasip2` only.

use std::time::SystemTime;

/// Now. Works in every form of a plugin, and in its native tests.
pub fn now() -> SystemTime {
    #[cfg(target_family = "wasm")]
    {
        let now = wasip2::clocks::wall_clock::now();
        // A host that says nonsense is as good as one that says nothing.
        SystemTime::UNIX_EPOCH
            .checked_add(std::time::Duration::new(now.seconds, now.nanoseconds.min(999_999_999)))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
    #[cfg(not(target_family = "wasm"))]
    SystemTime::now()
}
