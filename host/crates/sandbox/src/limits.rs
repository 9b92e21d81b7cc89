//! Limits of one attempt.

use config::Limits;
use wasmtime::ResourceLimiter;

/// Maximum number of memories of one attempt. The pool reserves this many for each attempt, or one plugin could use
/// up the memories of all others. JavaScript on QuickJS has five: its own, and those of the adapters that stand in
/// for the system.
pub(crate) const MEMORIES_MAX: usize = 8;
/// Maximum number of tables of one attempt.
pub(crate) const TABLES_MAX: usize = 16;

/// Limits one attempt. Remembers what it refused, because the guest only sees that growing failed, and then usually
/// dies with a meaningless error.
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

    /// Returns the current size of linear memory in bytes.
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
