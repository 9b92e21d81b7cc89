//! A plugin's log lines, within its quota, in the host's log.
//!
//! They are written before the call returns, and so before the event is acknowledged.

use std::sync::{Arc, Mutex, PoisonError};

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
    /// They go into the host's log.
    shown: bool,
    /// They are kept, for who watches the call.
    kept: Option<KeptLines>,
}

/// One line of a plugin's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogLine {
    pub(crate) level: &'static str,
    pub(crate) message: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// Lines that outlive their call, even if the call is cut off.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptLines(Arc<Mutex<Vec<LogLine>>>);

impl KeptLines {
    pub(crate) fn take(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PluginLog {
    /// `event_id` says what the call is about.
    pub(crate) fn new(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits) -> Self {
        let (lines_left, bytes_left) = (limits.log_lines, limits.log_bytes);
        Self { plugin, event_id, lines_left, bytes_left, lines_dropped: 0, shown: true, kept: None }
    }

    /// One whose lines are kept as well, or only kept.
    pub(crate) fn keeping(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits, shown: bool) -> Self {
        Self { shown, kept: Some(KeptLines::default()), ..Self::new(plugin, event_id, limits) }
    }

    /// What [`Self::keeping`] keeps.
    pub(crate) fn kept(&self) -> KeptLines {
        self.kept.clone().unwrap_or_default()
    }

    /// Says what did not fit.
    pub(crate) fn close(&self) {
        if self.lines_dropped > 0 && self.shown {
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
        self.calls.count("log.enabled");
        match level {
            GuestLevel::Trace => tracing::enabled!(target: LOG_TARGET, Level::TRACE),
            GuestLevel::Debug => tracing::enabled!(target: LOG_TARGET, Level::DEBUG),
            GuestLevel::Info => tracing::enabled!(target: LOG_TARGET, Level::INFO),
            GuestLevel::Warn => tracing::enabled!(target: LOG_TARGET, Level::WARN),
            GuestLevel::Error => tracing::enabled!(target: LOG_TARGET, Level::ERROR),
        }
    }

    async fn write(&mut self, level: GuestLevel, message: String, fields: Vec<(String, String)>) {
        self.calls.count("log.write");
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + message.len();
        if !self.log.admit(bytes) {
            return;
        }
        if let Some(kept) = &self.log.kept {
            let level = match level {
                GuestLevel::Trace => "trace",
                GuestLevel::Debug => "debug",
                GuestLevel::Info => "info",
                GuestLevel::Warn => "warn",
                GuestLevel::Error => "error",
            };
            let line = LogLine { level, message: message.clone(), fields: fields.clone() };
            kept.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        if !self.log.shown {
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
