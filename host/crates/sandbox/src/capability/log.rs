//! A plugin's log lines, within its quota, in the host's log.
//!
//! A call never waits for them. Where they are required, its outcome does, and so the event is acknowledged after they have
//! been handed to the system.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::Limits;
use contract::log::{Host, Level as GuestLevel};
use serde::Serializer as _;
use telemetry::log_writer::RequiredLines;
use tracing::{Level, event, warn};

use crate::Guest;
use crate::capability::secret_store::SecretStore;
use crate::capability::stdio::{Lines, StdioStream};

/// The target of these lines, by which the operator may filter them.
pub const LOG_TARGET: &str = "plugin";

/// Fields of one line; what is beyond is counted.
const FIELDS_MAX: usize = 100;

/// The log of one call. Its copies are one log: the guest's console writes into it, too.
#[derive(Clone, Debug)]
pub struct PluginLog {
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
    secret_store: Arc<SecretStore>,
    /// Waits for required lines to be written.
    required: Option<Arc<RequiredLines>>,
}

/// One line of a plugin's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub level: &'static str,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

/// What is kept of a log.
#[derive(Debug)]
enum Kept {
    /// Everything, whatever the operator wants to see.
    All(Vec<LogLine>),
    Beginning(Beginning),
}

/// The first lines of a log that the operator sees in the host's.
#[derive(Debug)]
pub struct Beginning {
    lines: Vec<SeenLine>,
    lines_left: usize,
    bytes_left: usize,
    beyond: usize,
}

/// One of them, as the host's log has it.
#[derive(Debug)]
pub struct SeenLine {
    pub level: &'static str,
    pub message: String,
    /// As a JSON object.
    pub fields: Option<String>,
}

/// Lines of one attempt that are kept as its beginning, and bytes of them in all.
const BEGINNING_LINES_MAX: usize = 10;
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

    /// How many lines there was no room for.
    pub fn beyond(&self) -> usize {
        self.beyond
    }

    /// Takes a line, if there is room for it.
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

    /// Leaves as much of a text as there is room for; whether that is all of it.
    fn fit(&mut self, text: &mut String) -> bool {
        let is_whole = text.len() <= self.bytes_left;
        if !is_whole {
            text.truncate(text.floor_char_boundary(self.bytes_left));
            text.push('…');
            // What comes after a gap would look as if it came at once.
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
    pub fn new(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits) -> Self {
        Self::of(plugin, event_id, limits, true, None)
    }

    /// One whose lines are kept as well, or only kept.
    pub(crate) fn keeping(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits, shown: bool) -> Self {
        Self::of(plugin, event_id, limits, shown, Some(Kept::All(Vec::new())))
    }

    /// One whose first lines are kept as well, as far as they are in the host's log.
    pub(crate) fn keeping_the_beginning(plugin: Arc<str>, event_id: Arc<str>, limits: &Limits) -> Self {
        Self::of(plugin, event_id, limits, true, Some(Kept::Beginning(Beginning::default())))
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
            secret_store: Arc::default(),
            required: None,
        };
        Self { book: Arc::new(Mutex::new(book)) }
    }

    /// The same, without the values of these secrets in it.
    pub(crate) fn hiding(self, secret_store: &Arc<SecretStore>) -> Self {
        self.book().secret_store = Arc::clone(secret_store);
        self
    }

    /// The same, for whom each line is required, if there is one.
    pub(crate) fn requiring(self, lines: Option<&Arc<RequiredLines>>) -> Self {
        self.book().required = lines.cloned();
        self
    }

    /// All lines, if they were kept. Another copy of the log has them even if the call was cut off.
    pub(crate) fn take_lines(&self) -> Vec<LogLine> {
        match self.book().kept.take() {
            Some(Kept::All(lines)) => lines,
            Some(Kept::Beginning(_)) | None => Vec::new(),
        }
    }

    /// The first lines, if they were kept, as [`Self::take_lines`].
    pub(crate) fn take_beginning(&self) -> Beginning {
        match self.book().kept.take() {
            Some(Kept::Beginning(beginning)) => beginning,
            Some(Kept::All(_)) | None => Beginning::default(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the guest wrote to its console.
    pub fn print(&self, stream: StdioStream, bytes: &[u8]) {
        let mut book = self.book();
        let mut lines = std::mem::take(book.lines_of(stream));
        let secret_store = Arc::clone(&book.secret_store);
        lines.push(bytes, &secret_store, |line| book.print(stream, line));
        *book.lines_of(stream) = lines;
    }

    /// What the host has to say to whoever wrote the plugin, beside what the guest writes to its standard error.
    pub(crate) fn complain(&self, line: &str) {
        self.book().print(StdioStream::Error, line);
    }

    /// Writes what is left of the console, and says what did not fit.
    pub fn close(&self) {
        let mut book = self.book();
        for stream in [StdioStream::Output, StdioStream::Error] {
            let mut lines = std::mem::take(book.lines_of(stream));
            let secret_store = Arc::clone(&book.secret_store);
            lines.finish(&secret_store, |line| book.print(stream, line));
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

    fn lines_of(&mut self, stream: StdioStream) -> &mut Lines {
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
                event!(target: LOG_TARGET, Level::INFO, plugin, event_id, stream = "stdout", "{line}")
            }
            // Where a panic or an uncaught exception says what it is.
            StdioStream::Error => {
                event!(target: LOG_TARGET, Level::WARN, plugin, event_id, stream = "stderr", "{line}")
            }
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
        let secret_store = Arc::clone(&book.secret_store);
        let message = secret_store.redact(message);
        let fields: Vec<_> =
            fields.into_iter().map(|(name, value)| (secret_store.redact(name), secret_store.redact(value))).collect();
        let data = data(&fields);
        if book.shown {
            let (plugin, event_id) = (&*book.plugin, &*book.event_id);
            let _mark = book.required.as_ref().map(RequiredLines::mark);
            // The level of a tracing event is fixed where it is written.
            match level {
                GuestLevel::Trace => event!(target: LOG_TARGET, Level::TRACE, plugin, event_id, data, "{message}"),
                GuestLevel::Debug => event!(target: LOG_TARGET, Level::DEBUG, plugin, event_id, data, "{message}"),
                GuestLevel::Info => event!(target: LOG_TARGET, Level::INFO, plugin, event_id, data, "{message}"),
                GuestLevel::Warn => event!(target: LOG_TARGET, Level::WARN, plugin, event_id, data, "{message}"),
                GuestLevel::Error => event!(target: LOG_TARGET, Level::ERROR, plugin, event_id, data, "{message}"),
            }
        }
        if let Some(kept) = &mut book.kept {
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

/// The fields as a JSON object, in their order. Of those with the same name it has the last.
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
        log.print(StdioStream::Output, b"one\ntwo");
        log.print(StdioStream::Error, b"half");
        log.print(StdioStream::Output, b"!\nthree\n");
        log.close();
        assert_eq!(log.book().lines_dropped, 2, "what had no end counts as well");
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
