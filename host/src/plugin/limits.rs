//! What one attempt may use.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// A plugin's limits, with safe defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Linear memory of one attempt, all its memories together.
    pub(crate) memory_bytes: usize,
    /// Wall-clock time of one attempt, calls back into the host included.
    pub(crate) time: Duration,
    /// Attempts of this plugin that run at once.
    pub(crate) concurrency: usize,
    /// Log lines of one attempt.
    pub(crate) log_lines: usize,
    /// Log bytes of one attempt.
    pub(crate) log_bytes: usize,
    /// Elements of one table. Each function that is called through a pointer is one.
    pub(crate) table_elements: usize,
    /// Core modules that one attempt may instantiate; a Python component consists of 14.
    pub(crate) instances: usize,
    /// Resources of the host's that one attempt may hold: pollables, streams, secrets.
    pub(crate) handles: usize,
    /// Bytes that one call back into the host, or the answer, may copy out of the guest.
    pub(crate) host_call_bytes: usize,
    /// Bytes of a response's body that one HTTP exchange hands over.
    pub(crate) response_bytes: usize,
    /// Bytes that are kept of each text of an answer.
    pub(crate) result_bytes: usize,
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

/// What the limits may be raised to, where a pool's places are all of one size.
pub(crate) const INSTANCES_MAX: usize = 32;
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Of one attempt. The pool has room for so many of each attempt that it has room for: else
/// one plugin could use up the memories of all others. JavaScript on QuickJS has five: its own, and
/// those of what stands in for the system.
pub(crate) const MEMORIES_MAX: usize = 8;
pub(crate) const TABLES_MAX: usize = 16;

/// Watches one attempt. Remembers what it refused, because the guest only sees that growing
/// failed, and then usually dies of something that says nothing.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_bytes_max: usize,
    memory_bytes_left: usize,
    table_elements: usize,
    instances: usize,
    pub(crate) refused_memory: bool,
    pub(crate) refused_table: bool,
}

impl Limiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_bytes_max: limits.memory_bytes,
            memory_bytes_left: limits.memory_bytes,
            table_elements: limits.table_elements,
            instances: limits.instances,
            refused_memory: false,
            refused_table: false,
        }
    }

    /// Linear memory that there is now.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes_max - self.memory_bytes_left
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let Some(left) = self.memory_bytes_left.checked_sub(desired.saturating_sub(current)) else {
            self.refused_memory = true;
            return Ok(false);
        };
        self.memory_bytes_left = left;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired <= self.table_elements;
        self.refused_table |= !allowed;
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_of_an_attempt_share_one_limit_and_a_refusal_is_remembered() {
        let mut limiter = Limiter::new(&Limits { memory_bytes: 100, ..Limits::default() });
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert!(!limiter.refused_memory);
        assert!(!limiter.memory_growing(40, 41, None).unwrap());
        assert!(limiter.refused_memory);
    }

    #[test]
    fn a_table_has_its_limit_and_a_refusal_is_remembered() {
        let mut limiter = Limiter::new(&Limits { table_elements: 10, ..Limits::default() });
        assert!(limiter.table_growing(0, 10, None).unwrap());
        assert!(!limiter.refused_table);
        assert!(!limiter.table_growing(10, 11, None).unwrap());
        assert!(limiter.refused_table);
    }
}
