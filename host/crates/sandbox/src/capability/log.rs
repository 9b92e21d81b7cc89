//! Writes a plugin's log lines to the host's log, within the plugin's quota.
//!
//! A call never waits for its lines. Where they are required, its outcome does, so the event is acknowledged after
//! they have been handed to the system.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::Limits;
use contract::log::{Host, Level as GuestLevel};
use serde::Serializer as _;
use telemetry::log_writer::RequiredLines;
use tracing::{Level, event, warn};

use crate::capability::HostState;
use crate::capability::output_lines::{LineSplitter, StdioStream};
use crate::capability::secret_store::SecretStore;

/// The target of plugin log lines, by which the operator may filter them.
pub const LOG_TARGET: &str = "plugin";

/// Maximum number of fields of one line. The log counts the rest.
const FIELDS_MAX: usize = 100;

/// The log of one call. Clones share one log; the guest's stdio writes into it, too.
#[derive(Clone, Debug)]
pub struct PluginLog {
    state: Arc<Mutex<LogState>>,
}

#[derive(Debug)]
struct LogState {
    plugin: Arc<str>,
    event_id: Arc<str>,
    lines_left: usize,
    bytes_left: usize,
    lines_dropped: usize,
    output: LineSplitter,
    error: LineSplitter,
    /// Whether lines go to the host's log.
    shown: bool,
    /// Lines kept until the call has ended, if anybody wants them.
    kept: Option<Kept>,
    /// The secrets whose values are removed.
    secret_store: Arc<SecretStore>,
    /// Set if each line is required: the outcome waits until they are written.
    required: Option<Arc<RequiredLines>>,
}

/// One log line of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub level: &'static str,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

/// The lines that are kept of a log.
#[derive(Debug)]
enum Kept {
    /// All lines, even those below the operator's log level.
    All(Vec<LogLine>),
    Beginning(Beginning),
}

/// The first lines of a plugin's log, as far as the host's log shows them.
#[derive(Debug)]
pub struct Beginning {
    lines: Vec<SeenLine>,
    lines_left: usize,
    bytes_left: usize,
    beyond: usize,
}

/// A line as the host's log shows it.
#[derive(Debug)]
pub struct SeenLine {
    pub level: &'static str,
    pub message: String,
    /// The fields as a JSON object.
    pub fields: Option<String>,
}

/// Maximum number of lines kept per attempt.
const BEGINNING_LINES_MAX: usize = 10;
/// Maximum bytes of the kept lines.
const BEGINNING_BYTES_MAX: usize = 4 << 10;

impl Default for Beginning {
    fn default() -> Self {
        Self { lines: Vec::new(), lines_left: BEGINNING_LINES_MAX, bytes_left: BEGINNING_BYTES_MAX, beyond: 0 }
    }
}

impl Beginning {
    pub fn lines(&self) -> &[SeenLine] {
        &self.lines
    }

    /// Returns how many lines did not fit.
    pub fn beyond(&self) -> usize {
        self.beyond
    }

    /// Adds a line if there is room.
    fn push(&mut self, level: &'static str, mut message: String, fields: Option<String>) {
        if self.lines_left == 0 {
            self.beyond += 1;
            return;
        }
        self.lines_left -= 1;
        let is_whole = self.fit(&mut message);
        let fields = fields.filter(|_| is_whole).map(|mut fields| {
            self.fit(&mut fields);
            fields
        });
        self.lines.push(SeenLine { level, message, fields });
    }

    /// Truncates a text to the room left. Returns whether all of it fits.
    fn fit(&mut self, text: &mut String) -> bool {
        let is_whole = text.len() <= self.bytes_left;
        if !is_whole {
            text.truncate(text.floor_char_boundary(self.bytes_left));
            text.push('…');
            // Stop here: lines after a gap would look contiguous.
            self.lines_left = 0;
        }
        self.bytes_left = self.bytes_left.saturating_sub(text.len());
        is_whole
    }
}

impl Kept {
    fn push(
        &mut self,
        (level, name): (Level, &'static str),
        message: String,
        fields: Vec<(String, String)>,
        data: Option<String>,
    ) {
        match self {
            Self::All(lines) => lines.push(LogLine { level: name, message, fields }),
            Self::Beginning(beginning) if is_seen(level) => beginning.push(name, message, data),
            Self::Beginning(_) => {}
        }
    }
}

/// Returns whether the operator's log level includes such lines.
fn is_seen(level: Level) -> bool {
    match level {
        Level::TRACE => tracing::enabled!(target: LOG_TARGET, Level::TRACE),
        Level::DEBUG => tracing::enabled!(target: LOG_TARGET, Level::DEBUG),
        Level::INFO => tracing::enabled!(target: LOG_TARGET, Level::INFO),
        Level::WARN => tracing::enabled!(target: LOG_TARGET, Level::WARN),
        Level::ERROR => tracing::enabled!(target: LOG_TARGET, Level::ERROR),
    }
}

impl PluginLog {
    /// Creates the log of a call about this event.
    pub fn new(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits) -> Self {
        Self::of(plugin, event_id, limits, true, None)
    }

    /// Creates a log that keeps all its lines. `shown` writes them to the host's log as well.
    pub(crate) fn keeping(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits, shown: bool) -> Self {
        Self::of(plugin, event_id, limits, shown, Some(Kept::All(Vec::new())))
    }

    /// Creates a log that also keeps its first lines, as far as the host's log shows them.
    pub(crate) fn keeping_the_beginning(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits) -> Self {
        Self::of(plugin, event_id, limits, true, Some(Kept::Beginning(Beginning::default())))
    }

    fn of(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits, shown: bool, kept: Option<Kept>) -> Self {
        let state = LogState {
            plugin,
            event_id,
            lines_left: limits.log_lines,
            bytes_left: limits.log_bytes,
            lines_dropped: 0,
            output: LineSplitter::default(),
            error: LineSplitter::default(),
            shown,
            kept,
            secret_store: Arc::default(),
            required: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Removes the values of these secrets from the lines.
    pub(crate) fn hiding(self, secret_store: &Arc<SecretStore>) -> Self {
        self.state().secret_store = Arc::clone(secret_store);
        self
    }

    /// Makes each line required, if `lines` is given.
    pub(crate) fn requiring(self, lines: Option<&Arc<RequiredLines>>) -> Self {
        self.state().required = lines.cloned();
        self
    }

    /// Returns all lines, if they were kept. A clone of the log has them even if the call was cut off.
    pub(crate) fn take_lines(&self) -> Vec<LogLine> {
        match self.state().kept.take() {
            Some(Kept::All(lines)) => lines,
            Some(Kept::Beginning(_)) | None => Vec::new(),
        }
    }

    /// Returns the first lines, if they were kept. See [`Self::take_lines`].
    pub(crate) fn take_beginning(&self) -> Beginning {
        match self.state().kept.take() {
            Some(Kept::Beginning(beginning)) => beginning,
            Some(Kept::All(_)) | None => Beginning::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs bytes that the guest wrote to its stdio.
    pub fn print(&self, stream: StdioStream, bytes: &[u8]) {
        let mut state = self.state();
        let mut lines = std::mem::take(state.lines_of(stream));
        let secret_store = Arc::clone(&state.secret_store);
        lines.push(bytes, &secret_store, |line| state.print(stream, line));
        *state.lines_of(stream) = lines;
    }

    /// Logs a message of the host to the plugin's author, next to the guest's standard error.
    pub(crate) fn complain(&self, line: &str) {
        self.state().print(StdioStream::Error, line);
    }

    /// Logs the unfinished lines of the guest's stdio, and reports how many lines did not fit.
    pub fn close(&self) {
        let mut state = self.state();
        for stream in [StdioStream::Output, StdioStream::Error] {
            let mut lines = std::mem::take(state.lines_of(stream));
            let secret_store = Arc::clone(&state.secret_store);
            lines.finish(&secret_store, |line| state.print(stream, line));
        }
        if state.lines_dropped > 0 && state.shown {
            let (plugin, event_id, lines) = (&*state.plugin, &*state.event_id, state.lines_dropped);
            warn!(plugin, event_id, lines, "log lines past the plugin's quota were dropped");
        }
    }
}

impl LogState {
    /// Takes room for a line of this size. Returns whether there was any.
    fn admit(&mut self, bytes: usize) -> bool {
        let left = self.lines_left.checked_sub(1).zip(self.bytes_left.checked_sub(bytes));
        let Some((lines, bytes)) = left else {
            self.lines_dropped += 1;
            return false;
        };
        (self.lines_left, self.bytes_left) = (lines, bytes);
        true
    }

    fn lines_of(&mut self, stream: StdioStream) -> &mut LineSplitter {
        match stream {
            StdioStream::Output => &mut self.output,
            StdioStream::Error => &mut self.error,
        }
    }

    fn print(&mut self, stream: StdioStream, line: &str) {
        if !self.admit(line.len()) {
            return;
        }
        if let Some(kept) = &mut self.kept {
            let level = named(match stream {
                StdioStream::Output => GuestLevel::Info,
                StdioStream::Error => GuestLevel::Warn,
            });
            kept.push(level, line.to_owned(), Vec::new(), None);
        }
        if !self.shown {
            return;
        }
        let (plugin, event_id) = (&*self.plugin, &*self.event_id);
        let _mark = self.required.as_ref().map(RequiredLines::mark);
        match stream {
            StdioStream::Output => {
                event!(target: LOG_TARGET, Level::INFO, plugin, event_id, stream = "stdout", "{line}");
            }
            // Warn, because panics and uncaught exceptions are reported here.
            StdioStream::Error => {
                event!(target: LOG_TARGET, Level::WARN, plugin, event_id, stream = "stderr", "{line}");
            }
        }
    }
}

impl Host for HostState {
    fn enabled(&mut self, level: GuestLevel) -> bool {
        self.calls.count("log.enabled");
        is_seen(named(level).0)
    }

    fn write(&mut self, level: GuestLevel, message: String, fields: Vec<(String, String)>) {
        self.calls.count("log.write");
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + message.len();
        let mut state = self.log.state();
        if !state.admit(bytes) {
            return;
        }
        let secret_store = Arc::clone(&state.secret_store);
        let message = secret_store.redact(message);
        let fields: Vec<_> =
            fields.into_iter().map(|(name, value)| (secret_store.redact(name), secret_store.redact(value))).collect();
        let data = data(&fields);
        if state.shown {
            let (plugin, event_id) = (&*state.plugin, &*state.event_id);
            let _mark = state.required.as_ref().map(RequiredLines::mark);
            // The level of a tracing event must be a constant.
            match level {
                GuestLevel::Trace => event!(target: LOG_TARGET, Level::TRACE, plugin, event_id, data, "{message}"),
                GuestLevel::Debug => event!(target: LOG_TARGET, Level::DEBUG, plugin, event_id, data, "{message}"),
                GuestLevel::Info => event!(target: LOG_TARGET, Level::INFO, plugin, event_id, data, "{message}"),
                GuestLevel::Warn => event!(target: LOG_TARGET, Level::WARN, plugin, event_id, data, "{message}"),
                GuestLevel::Error => event!(target: LOG_TARGET, Level::ERROR, plugin, event_id, data, "{message}"),
            }
        }
        if let Some(kept) = &mut state.kept {
            kept.push(named(level), message, fields, data);
        }
    }
}

fn named(level: GuestLevel) -> (Level, &'static str) {
    match level {
        GuestLevel::Trace => (Level::TRACE, "trace"),
        GuestLevel::Debug => (Level::DEBUG, "debug"),
        GuestLevel::Info => (Level::INFO, "info"),
        GuestLevel::Warn => (Level::WARN, "warn"),
        GuestLevel::Error => (Level::ERROR, "error"),
    }
}

/// Returns the fields as a JSON object, in their order. If a name repeats, the last value counts.
fn data(fields: &[(String, String)]) -> Option<String> {
    if fields.is_empty() {
        return None;
    }
    let shown = &fields[..fields.len().min(FIELDS_MAX)];
    let beyond = (fields.len() > FIELDS_MAX).then(|| ("…", format!("{} more", fields.len() - FIELDS_MAX)));
    let named_once = shown.iter().enumerate().filter_map(|(index, (name, value))| {
        let is_the_last = !shown[index + 1..].iter().any(|(later, _)| later == name);
        is_the_last.then_some((name.as_str(), value.as_str()))
    });
    let all = named_once.chain(beyond.iter().map(|(name, value)| (*name, value.as_str())));
    let mut data = Vec::with_capacity(128);
    serde_json::Serializer::new(&mut data).collect_map(all).ok()?;
    String::from_utf8(data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_quota_are_counted_and_dropped() {
        let limits = Limits { log_lines: 2, log_bytes: 10, ..Limits::default() };
        let log = PluginLog::new("p".into(), "e".into(), &limits);
        let mut log = log.state();
        assert!(log.admit(4));
        assert!(!log.admit(7));
        assert!(log.admit(6));
        assert!(!log.admit(0));
        assert_eq!(log.lines_dropped, 2);
    }
    #[test]
    fn the_console_shares_the_quota_of_the_log() {
        let limits = Limits { log_lines: 2, ..Limits::default() };
        let log = PluginLog::keeping("p".into(), "e".into(), &limits, false);
        log.print(StdioStream::Output, b"one\ntwo");
        log.print(StdioStream::Error, b"half");
        log.print(StdioStream::Output, b"!\nthree\n");
        log.close();
        assert_eq!(log.state().lines_dropped, 2, "what had no end counts as well");
        let kept: Vec<_> = log.take_lines().into_iter().map(|line| line.message).collect();
        assert_eq!(kept, ["one", "two!"]);
    }

    fn beginning(lines: &[String]) -> (Vec<String>, usize) {
        let log = PluginLog::keeping_the_beginning("p".into(), "e".into(), &Limits::default());
        for line in lines {
            log.print(StdioStream::Output, format!("{line}\n").as_bytes());
        }
        log.close();
        let Beginning { lines, beyond, .. } = log.take_beginning();
        (lines.into_iter().map(|line| line.message).collect(), beyond)
    }

    #[test]
    fn of_a_beginning_the_first_lines_are_kept_and_the_rest_is_counted() {
        // Only visible lines are kept. Without a subscriber no line is visible.
        assert_eq!(beginning(&["unseen".to_owned()]), (Vec::new(), 0));
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            let lines: Vec<_> = (0..BEGINNING_LINES_MAX + 3).map(|number| number.to_string()).collect();
            assert_eq!(beginning(&lines), (lines[..BEGINNING_LINES_MAX].to_vec(), 3));
            // The longest line that stdio may produce.
            let long = "x".repeat(BEGINNING_BYTES_MAX / 2 + 1);
            let lines = ["short".to_owned(), long.clone(), long, "short".to_owned()];
            let (kept, beyond) = beginning(&lines);
            assert_eq!(kept[..2], lines[..2]);
            assert!(kept[2].starts_with('x') && kept[2].ends_with('…'), "{}", kept[2]);
            assert!(kept.iter().map(String::len).sum::<usize>() <= BEGINNING_BYTES_MAX + '…'.len_utf8());
            assert_eq!((kept.len(), beyond), (3, 1), "nothing after a gap");
        });
    }

    #[test]
    fn fields_are_cut_as_messages_are() {
        let mut beginning = Beginning::default();
        for fields in ["x".repeat(BEGINNING_BYTES_MAX - 8), "é".repeat(4), "x".to_owned()] {
            beginning.push("info", "sent".to_owned(), Some(fields));
        }
        let fields: Vec<_> = beginning.lines().iter().filter_map(|line| line.fields.as_deref()).collect();
        assert_eq!((fields[0].len(), &fields[1..], beginning.beyond()), (BEGINNING_BYTES_MAX - 8, &["…"][..], 1));
        let mut beginning = Beginning::default();
        beginning.push("info", "x".repeat(BEGINNING_BYTES_MAX - 3), Some("éé".to_owned()));
        beginning.push("info", "sent".to_owned(), None);
        assert_eq!(beginning.lines()[0].fields.as_deref(), Some("é…"));
        assert_eq!((beginning.lines().len(), beginning.beyond()), (1, 1), "nothing after a gap");
    }

    #[test]
    fn fields_have_their_order_and_each_name_once() {
        let fields = [("b", "1"), ("a", "2"), ("b", "\"3\"")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(data(&fields).unwrap(), r#"{"a":"2","b":"\"3\""}"#);
    }

    #[test]
    fn fields_beyond_a_hundred_are_counted() {
        let fields = |count: usize| (0..count).map(|number| (number.to_string(), String::new())).collect::<Vec<_>>();
        assert_eq!(data(&fields(0)), None);
        assert!(!data(&fields(100)).unwrap().contains('…'));
        let many: serde_json::Map<_, _> = serde_json::from_str(&data(&fields(10_000)).unwrap()).unwrap();
        assert_eq!(many.len(), FIELDS_MAX + 1);
        assert_eq!(many["…"], "9900 more");
    }
}
