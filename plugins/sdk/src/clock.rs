//! The time of day, from WASI. `std` only provides it in plugins that are built for `wasm32-wasip2`.

use std::time::SystemTime;

/// Returns the current time. Works in every form of a plugin, and in its native tests.
pub fn now() -> SystemTime {
    #[cfg(target_family = "wasm")]
    {
        let now = wasip2::clocks::wall_clock::now();
        // Treat an invalid time from the host like a missing one.
        SystemTime::UNIX_EPOCH
            .checked_add(std::time::Duration::new(now.seconds, now.nanoseconds.min(999_999_999)))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
    #[cfg(not(target_family = "wasm"))]
    SystemTime::now()
}
