//! A plugin's log lines, within its quota, in the host's log.
//!
//! They are written before the call returns, and so before the event is acknowledged.

use std::sync::Arc;

use tracing::{Level, event, warn};

use crate::plugin::contract::log::{Host, Level as GuestLevel};
use crate::plugin::{Guest, Limits};

/// The target of these lines, by which the operator may filter them.
pub(crate) const LOG_TARGET: &str = "plugin";

/// The log of one call.
#[derive(Debug)]
pub(crate) struct PluginLog {
    plugin: Arc<str>,
    event_id: Arc<str>,
    lines_left: usize,
    bytes_left: usize,
    lines_dropped: usize,
}

impl PluginLog {
    /// `event_id` says what the call is about.
    pub(crate) fn new(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits) -> Self {
        Self { plugin, event_id, lines_left: limits.log_lines, bytes_left: limits.log_bytes, lines_dropped: 0 }
    }

    /// Says what did not fit.
    pub(crate) fn close(&self) {
        if self.lines_dropped > 0 {
            let (plugin, event_id, lines) = (&*self.plugin, &*self.event_id, self.lines_dropped);
            warn!(plugin, event_id, lines, "log lines past the plugin's quota were dropped");
        }
    }

    /// Whether there is room for a line of this size; takes the room.
    fn admit(&mut self, bytes: usize) -> bool {
        let left = self.lines_left.checked_sub(1).zip(self.bytes_left.checked_sub(bytes));
        let Some((lines, bytes)) = left else {
            self.lines_dropped += 1;
            return false;
        };
        (self.lines_left, self.bytes_left) = (lines, bytes);
        true
    }
}

impl Host for Guest {
    async fn enabled(&mut self, level: GuestLevel) -> bool {
        match level {
            GuestLevel::Trace => tracing::enabled!(target: LOG_TARGET, Level::TRACE),
            GuestLevel::Debug => tracing::enabled!(target: LOG_TARGET, Level::DEBUG),
            GuestLevel::Info => tracing::enabled!(target: LOG_TARGET, Level::INFO),
            GuestLevel::Warn => tracing::enabled!(target: LOG_TARGET, Level::WARN),
            GuestLevel::Error => tracing::enabled!(target: LOG_TARGET, Level::ERROR),
        }
    }

    async fn write(&mut self, level: GuestLevel, message: String, fields: Vec<(String, String)>) {
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + message.len();
        if !self.log.admit(bytes) {
            return;
        }
        let (plugin, event_id) = (&*self.log.plugin, &*self.log.event_id);
        let data: serde_json::Map<_, _> = fields.into_iter().map(|(name, value)| (name, value.into())).collect();
        let data = (!data.is_empty()).then(|| serde_json::Value::from(data).to_string());
        // The level of a tracing event is fixed where it is written.
        match level {
            GuestLevel::Trace => event!(target: LOG_TARGET, Level::TRACE, plugin, event_id, data, "{message}"),
            GuestLevel::Debug => event!(target: LOG_TARGET, Level::DEBUG, plugin, event_id, data, "{message}"),
            GuestLevel::Info => event!(target: LOG_TARGET, Level::INFO, plugin, event_id, data, "{message}"),
            GuestLevel::Warn => event!(target: LOG_TARGET, Level::WARN, plugin, event_id, data, "{message}"),
            GuestLevel::Error => event!(target: LOG_TARGET, Level::ERROR, plugin, event_id, data, "{message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_quota_are_counted_and_dropped() {
        let limits = Limits { log_lines: 2, log_bytes: 10, ..Limits::default() };
        let mut log = PluginLog::new("p".into(), "e".into(), &limits);
        assert!(log.admit(4));
        assert!(!log.admit(7));
        assert!(log.admit(6));
        assert!(!log.admit(0));
        assert_eq!(log.lines_dropped, 2);
    }
}
