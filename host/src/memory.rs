//! Returns unused memory to the system after a burst.
//!
//! The C library keeps freed memory for later, in one heap per thread: after 20,000 events, three times as much as is
//! in use. Under load that is right. Nothing here limits memory in use.

use std::sync::Arc;
use std::time::Duration;

use state::file;
use telemetry::metrics::HostMetrics;

const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of attempts per interval at which a host counts as quiet: a hundredth of what it can do.
const QUIET_MAX: u64 = 1000;
/// Minimum number of attempts since memory was last returned. A host with a steady trickle returns some every minute or
/// so.
const BURST_MIN: u64 = 5000;

/// Returns memory after each burst, for as long as the future is polled.
pub(crate) async fn give_back(metrics: Arc<HostMetrics>) {
    let mut burst = Burst::default();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if burst.is_over(metrics.succeeded.get() + metrics.failed.get()) {
            // Trimming locks the heaps one after the other; a quiet host has time for that.
            file::apart(trim).await;
        }
    }
}

/// Counts attempts since memory was last returned.
#[derive(Debug)]
struct Burst {
    attempts: u64,
    looked_at: u64,
}

impl Default for Burst {
    /// The start counts as a burst without attempts, because plugins are read and loaded.
    fn default() -> Self {
        Self { attempts: BURST_MIN, looked_at: 0 }
    }
}

impl Burst {
    /// Whether a burst has just ended. `attempts` is the total since the start.
    fn is_over(&mut self, attempts: u64) -> bool {
        let new = attempts.saturating_sub(self.looked_at);
        self.looked_at = attempts;
        self.attempts = self.attempts.saturating_add(new);
        let is_over = new <= QUIET_MAX && self.attempts >= BURST_MIN;
        if is_over {
            self.attempts = 0;
        }
        is_over
    }
}

/// Returns free memory of the C library. Does nothing where the library has no such function.
fn trim() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the C library's function has no safe name")]
    // SAFETY: any thread may call it at any time; it touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_after_the_start_and_once_after_each_burst() {
        let mut burst = Burst::default();
        let looks = [
            (0, true, "the start"),
            (0, false, "nothing has happened since"),
            (900, false, "a little"),
            (15_000, false, "a burst"),
            (90_000, false, "that goes on"),
            (90_500, true, "and is over"),
            (91_000, false, "given back already"),
        ];
        for (attempts, expected, what) in looks {
            assert_eq!(burst.is_over(attempts), expected, "{what}");
        }
    }

    #[test]
    fn a_trickle_adds_up() {
        let mut burst = Burst::default();
        assert!(burst.is_over(0));
        let given_back = (1..=20).filter(|look| burst.is_over(look * QUIET_MAX)).count();
        assert_eq!(given_back, 4);
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn what_is_free_between_what_is_in_use_goes_back() {
        const PIECE_BYTES: usize = 16 << 10;
        const PIECES: usize = 4096;
        const NAME: &str = "memory::tests::what_is_free_between_what_is_in_use_goes_back";
        const ALONE: &str = "NOTIFY_TEST_ALONE";
        // In a process of its own, because other tests allocate memory at the same time.
        if std::env::var_os(ALONE).is_none() {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            let output = alone.args(["--exact", NAME]).env(ALONE, "").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
        };
        let mut pieces: Vec<_> = (0..PIECES).map(|_| vec![1_u8; PIECE_BYTES]).collect();
        // Keep the last piece: it is at the top of the heap, and the library frees the top by itself.
        let last = pieces.pop();
        drop(pieces);
        let before = resident();
        trim();
        let after = resident();
        assert!(after + PIECE_BYTES * PIECES / 2 < before, "{before} bytes, then {after}");
        drop(last);
    }
}
