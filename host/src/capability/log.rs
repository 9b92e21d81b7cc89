//! A plugin's log lines, within its quota, in the host's log.
//!
//! They are written before the call returns, and so before the event is acknowledged.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{Level, event, warn};

use crate::capability::console::{Lines, Stream};
use crate::capability::vault::Vault;
use crate::plugin::contract::log::{Host, Level as GuestLevel};
use crate::plugin::{Guest, Limits};

/// The target of these lines, by which the operator may filter them.
pub(crate) const LOG_TARGET: &str = "plugin";

/// Fields of one line; what is beyond is counted.
const FIELDS_MAX: usize = 100;

/// The log of one call. Its copies are one log: the guest's console writes into it, too.
#[derive(Clone, Debug)]
pub(crate) struct PluginLog {
    book: Arc<Mutex<Book>>,
}

#[derive(Debug)]
struct Book {
    plugin: Arc<str>,
    event_id: Arc<str>,
    lines_left: usize,
    bytes_left: usize,
    lines_dropped: usize,
    output: Lines,
    error: Lines,
    /// They go into the host's log.
    shown: bool,
    /// They are kept, for who asks for them when the call has ended.
    kept: Option<Kept>,
    /// Whose values nobody sees.
    vault: Arc<Vault>,
}

/// One line of a plugin's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogLine {
    pub(crate) level: &'static str,
    pub(crate) message: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// What is kept of a log.
#[derive(Debug, Default)]
struct Kept {
    lines: Vec<LogLine>,
    /// `None`: everything, whatever the operator wants to see.
    room: Option<Room>,
}

/// What may be kept yet, of what the operator sees in the host's log.
#[derive(Debug)]
struct Room {
    lines_left: usize,
    bytes_left: usize,
    /// Lines that there was no room for.
    beyond: usize,
}

/// Lines of one attempt that are kept as its beginning, and bytes of them in all.
const BEGINNING_LINES_MAX: usize = 10;
const BEGINNING_BYTES_MAX: usize = 4 << 10;

impl Kept {
    /// Only the first lines.
    fn beginning() -> Self {
        let room = Room { lines_left: BEGINNING_LINES_MAX, bytes_left: BEGINNING_BYTES_MAX, beyond: 0 };
        Self { lines: Vec::new(), room: Some(room) }
    }

    /// Takes a line. It is only made if there is room for it.
    fn push(&mut self, level: Level, line: impl FnOnce() -> LogLine) {
        let Some(room) = &mut self.room else { return self.lines.push(line()) };
        if !is_seen(level) {
            return;
        }
        if room.lines_left == 0 {
            room.beyond += 1;
            return;
        }
        let line = line();
        let (level, mut message) = (line.level, line.text());
        room.lines_left -= 1;
        if message.len() > room.bytes_left {
            message.truncate(message.floor_char_boundary(room.bytes_left));
            message.push('…');
            // What comes after a gap would look as if it came at once.
            room.lines_left = 0;
        }
        room.bytes_left = room.bytes_left.saturating_sub(message.len());
        self.lines.push(LogLine { level, message, fields: Vec::new() });
    }
}

/// Whether the operator has such lines in the log.
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
    /// `event_id` says what the call is about.
    pub(crate) fn new(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits) -> Self {
        Self::of(plugin, event_id, limits, true, None)
    }

    /// One whose lines are kept as well, or only kept.
    pub(crate) fn keeping(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits, shown: bool) -> Self {
        Self::of(plugin, event_id, limits, shown, Some(Kept::default()))
    }

    /// One whose first lines are kept as well, as far as they are in the host's log.
    pub(crate) fn keeping_the_beginning(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits) -> Self {
        Self::of(plugin, event_id, limits, true, Some(Kept::beginning()))
    }

    fn of(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits, shown: bool, kept: Option<Kept>) -> Self {
        let book = Book {
            plugin,
            event_id,
            lines_left: limits.log_lines,
            bytes_left: limits.log_bytes,
            lines_dropped: 0,
            output: Lines::default(),
            error: Lines::default(),
            shown,
            kept,
            vault: Arc::default(),
        };
        Self { book: Arc::new(Mutex::new(book)) }
    }

    /// The same, without the values of these secrets in it.
    pub(crate) fn hiding(self, vault: &Arc<Vault>) -> Self {
        self.book().vault = Arc::clone(vault);
        self
    }

    /// What was kept, and how many lines there was no room for. Another copy of the log has it even if the call
    /// was cut off.
    pub(crate) fn take_kept(&self) -> (Vec<LogLine>, usize) {
        let kept = self.book().kept.take().unwrap_or_default();
        (kept.lines, kept.room.map_or(0, |room| room.beyond))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the guest wrote to its console.
    pub(crate) fn print(&self, stream: Stream, bytes: &[u8]) {
        let mut book = self.book();
        let mut lines = std::mem::take(book.lines_of(stream));
        let vault = Arc::clone(&book.vault);
        lines.push(bytes, &vault, |line| book.print(stream, line));
        *book.lines_of(stream) = lines;
    }

    /// What the host has to say to whoever wrote the plugin, beside what the guest writes to its standard error.
    pub(crate) fn complain(&self, line: &str) {
        self.book().print(Stream::Error, line);
    }

    /// Writes what is left of the console, and says what did not fit.
    pub(crate) fn close(&self) {
        let mut book = self.book();
        for stream in [Stream::Output, Stream::Error] {
            let mut lines = std::mem::take(book.lines_of(stream));
            let vault = Arc::clone(&book.vault);
            lines.finish(&vault, |line| book.print(stream, line));
        }
        if book.lines_dropped > 0 && book.shown {
            let (plugin, event_id, lines) = (&*book.plugin, &*book.event_id, book.lines_dropped);
            warn!(plugin, event_id, lines, "log lines past the plugin's quota were dropped");
        }
    }
}

impl Book {
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

    fn lines_of(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Output => &mut self.output,
            Stream::Error => &mut self.error,
        }
    }

    fn print(&mut self, stream: Stream, line: &str) {
        if !self.admit(line.len()) {
            return;
        }
        if let Some(kept) = &mut self.kept {
            let (level, name) = match stream {
                Stream::Output => (Level::INFO, "info"),
                Stream::Error => (Level::WARN, "warn"),
            };
            kept.push(level, || LogLine { level: name, message: line.to_owned(), fields: Vec::new() });
        }
        if !self.shown {
            return;
        }
        let (plugin, event_id) = (&*self.plugin, &*self.event_id);
        match stream {
            Stream::Output => event!(target: LOG_TARGET, Level::INFO, plugin, event_id, stream = "stdout", "{line}"),
            // Where a panic or an uncaught exception says what it is.
            Stream::Error => event!(target: LOG_TARGET, Level::WARN, plugin, event_id, stream = "stderr", "{line}"),
        }
    }
}

impl Host for Guest {
    fn enabled(&mut self, level: GuestLevel) -> bool {
        self.calls.count("log.enabled");
        is_seen(named(level).0)
    }

    fn write(&mut self, level: GuestLevel, message: String, fields: Vec<(String, String)>) {
        self.calls.count("log.write");
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + message.len();
        let mut book = self.log.book();
        if !book.admit(bytes) {
            return;
        }
        let vault = Arc::clone(&book.vault);
        let message = vault.redact(message);
        let fields: Vec<_> =
            fields.into_iter().map(|(name, value)| (vault.redact(name), vault.redact(value))).collect();
        if let Some(kept) = &mut book.kept {
            let (level, name) = named(level);
            kept.push(level, || LogLine { level: name, message: message.clone(), fields: fields.clone() });
        }
        if !book.shown {
            return;
        }
        let (plugin, event_id) = (&*book.plugin, &*book.event_id);
        let data = data(fields);
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

fn named(level: GuestLevel) -> (Level, &'static str) {
    match level {
        GuestLevel::Trace => (Level::TRACE, "trace"),
        GuestLevel::Debug => (Level::DEBUG, "debug"),
        GuestLevel::Info => (Level::INFO, "info"),
        GuestLevel::Warn => (Level::WARN, "warn"),
        GuestLevel::Error => (Level::ERROR, "error"),
    }
}

impl LogLine {
    /// Its message, and its fields as the log shows them.
    pub(crate) fn text(self) -> String {
        match data(self.fields) {
            Some(data) => format!("{} {data}", self.message),
            None => self.message,
        }
    }
}

/// The fields as a JSON object.
fn data(fields: Vec<(String, String)>) -> Option<String> {
    let beyond = fields.len().saturating_sub(FIELDS_MAX);
    let mut data: serde_json::Map<_, _> =
        fields.into_iter().take(FIELDS_MAX).map(|(name, value)| (name, value.into())).collect();
    if beyond > 0 {
        data.insert("…".to_owned(), format!("{beyond} more").into());
    }
    (!data.is_empty()).then(|| serde_json::Value::from(data).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_quota_are_counted_and_dropped() {
        let limits = Limits { log_lines: 2, log_bytes: 10, ..Limits::default() };
        let log = PluginLog::new("p".into(), "e".into(), &limits);
        let mut log = log.book();
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
        log.print(Stream::Output, b"one\ntwo");
        log.print(Stream::Error, b"half");
        log.print(Stream::Output, b"!\nthree\n");
        log.close();
        assert_eq!(log.book().lines_dropped, 2, "what had no end counts as well");
        let kept: Vec<_> = log.take_kept().0.into_iter().map(|line| line.message).collect();
        assert_eq!(kept, ["one", "two!"]);
    }

    fn beginning(lines: &[String]) -> (Vec<String>, usize) {
        let log = PluginLog::keeping_the_beginning("p".into(), "e".into(), &Limits::default());
        for line in lines {
            log.print(Stream::Output, format!("{line}\n").as_bytes());
        }
        log.close();
        let (lines, beyond) = log.take_kept();
        (lines.into_iter().map(LogLine::text).collect(), beyond)
    }

    #[test]
    fn of_a_beginning_the_first_lines_are_kept_and_the_rest_is_counted() {
        // What nobody sees in the log is not kept; here nobody would see any line.
        assert_eq!(beginning(&["unseen".to_owned()]), (Vec::new(), 0));
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            let lines: Vec<_> = (0..BEGINNING_LINES_MAX + 3).map(|number| number.to_string()).collect();
            assert_eq!(beginning(&lines), (lines[..BEGINNING_LINES_MAX].to_vec(), 3));
            // As long as a line of the console may be.
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
    fn the_text_of_a_line_has_its_fields() {
        let line = |fields| LogLine { level: "info", message: "sent".to_owned(), fields }.text();
        assert_eq!(line(Vec::new()), "sent");
        assert_eq!(line(vec![("status".to_owned(), "200".to_owned())]), r#"sent {"status":"200"}"#);
    }

    #[test]
    fn fields_beyond_a_hundred_are_counted() {
        let fields = |count: usize| (0..count).map(|number| (number.to_string(), String::new())).collect();
        assert_eq!(data(fields(0)), None);
        assert!(!data(fields(100)).unwrap().contains('…'));
        let many: serde_json::Map<_, _> = serde_json::from_str(&data(fields(10_000)).unwrap()).unwrap();
        assert_eq!(many.len(), FIELDS_MAX + 1);
        assert_eq!(many["…"], "9900 more");
    }
}
