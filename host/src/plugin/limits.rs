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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            time: Duration::from_secs(10),
            concurrency: 16,
            log_lines: 1000,
            log_bytes: 1 << 20,
        }
    }
}

/// Elements of one table. Each function that is called through a pointer is one.
const TABLE_ELEMENTS_MAX: usize = 20_000;
const INSTANCES_MAX: usize = 32;
const MEMORIES_MAX: usize = 8;
const TABLES_MAX: usize = 32;

/// Watches one attempt. Remembers what it refused, because the guest only sees that growing
/// failed, and then usually dies of something that says nothing.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_bytes_max: usize,
    memory_bytes_left: usize,
    pub(crate) refused_memory: bool,
    pub(crate) refused_table: bool,
}

impl Limiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_bytes_max: limits.memory_bytes,
            memory_bytes_left: limits.memory_bytes,
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
        let allowed = desired <= TABLE_ELEMENTS_MAX;
        self.refused_table |= !allowed;
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
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
}
