//! The log level of a running host, which can be changed at any time.

use std::fmt;

use tracing::level_filters::LevelFilter;

/// Changes the log level of a running host. The program that sets up logging provides the function behind it.
pub struct LogLevelHandle(Box<dyn Fn(LevelFilter) + Send + Sync>);

impl LogLevelHandle {
    /// Creates a handle that calls `set` for each change.
    pub fn new(set: impl Fn(LevelFilter) + Send + Sync + 'static) -> Self {
        Self(Box::new(set))
    }

    /// Logs this level and more severe ones from now on.
    pub fn set(&self, level: LevelFilter) {
        (self.0)(level);
    }
}

impl fmt::Debug for LogLevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLevelHandle")
    }
}
