//! How much is logged, which can be changed while the host runs.

use std::fmt;

use tracing::level_filters::LevelFilter;

/// Changes the log level of a running host. The program that set up the log provides the function that does it.
pub struct LogLevelHandle(Box<dyn Fn(LevelFilter) + Send + Sync>);

impl LogLevelHandle {
    /// Calls `set` for each change.
    pub fn new(set: impl Fn(LevelFilter) + Send + Sync + 'static) -> Self {
        Self(Box::new(set))
    }

    /// Logs this level and what is worse from now on.
    pub fn set(&self, level: LevelFilter) {
        (self.0)(level);
    }
}

impl fmt::Debug for LogLevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLevelHandle")
    }
}
