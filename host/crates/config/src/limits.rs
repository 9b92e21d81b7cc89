//! Resource limits of one attempt of a plugin.

use std::time::Duration;

/// A plugin's limits, with safe defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory of one attempt, all its memories together.
    pub memory_bytes: usize,
    /// Wall-clock time of one attempt, including calls back into the host.
    pub time: Duration,
    /// Maximum number of attempts of this plugin that run at once.
    pub concurrency: usize,
    /// Log lines of one attempt.
    pub log_lines: usize,
    /// Log bytes of one attempt.
    pub log_bytes: usize,
    /// Elements of one table. Each function that is called through a pointer takes one.
    pub table_elements: usize,
    /// Core modules that one attempt may instantiate. A Python component has 14.
    pub instances: usize,
    /// Host resources that one attempt may hold: pollables, streams, secrets.
    pub handles: usize,
    /// Bytes that one call back into the host, or the answer, may copy out of the guest.
    pub host_call_bytes: usize,
    /// Bytes of a response body that one HTTP exchange hands over.
    pub response_bytes: usize,
    /// Bytes that are kept of each text in an answer.
    pub result_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            time: Duration::from_secs(10),
            concurrency: 16,
            log_lines: 1000,
            log_bytes: 1 << 20,
            table_elements: 20_000,
            instances: INSTANCES_MAX,
            handles: 1024,
            host_call_bytes: 16 << 20,
            response_bytes: 1 << 20,
            result_bytes: 4 << 10,
        }
    }
}

/// Upper bound of the `instances` limit. The slots of the instance pool all have the same size.
pub const INSTANCES_MAX: usize = 32;
/// Upper bound of the `table-elements` limit, for the same reason.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Upper bound of the memory limit, in bytes. The slots of the instance pool all have the same size.
pub const MEMORY_BYTES_MAX: usize = 256 << 20;
