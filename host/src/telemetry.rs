//! The log: for people, one line of text per event; for machines, one JSON object per line.
//!
//! It goes to standard error: a command writes each line at once, a host by its [`LogWriter`], which keeps nobody waiting.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};
use std::{panic, thread};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use crate::capability::LOG_TARGET;
use crate::config::LogFormat;
use crate::log_writer::{CLOSE_TIME_MAX, LogStatus, LogWriter};

/// How much is logged, which can be changed.
pub(crate) struct Volume(reload::Handle<Targets, Registry>);

impl Volume {
    pub(crate) fn set(&self, level: LevelFilter) {
        // The only error is that the log is gone.
        let _ = self.0.reload(targets(level));
    }
}

/// Starts it for a command. `None`: for people.
pub(crate) fn start(format: Option<LogFormat>, level: LevelFilter) -> Volume {
    start_at(format, level, Destination::AtOnce)
}

/// Starts it for a host that holds up to so many messages.
pub(crate) fn start_host(format: Option<LogFormat>, level: LevelFilter, prefetch: u16) -> (Volume, HostLog) {
    let status = LogStatus::new(usize::from(prefetch));
    let writer = LogWriter::start(status.clone());
    let destination = writer.as_ref().map_or(Destination::AtOnce, |writer| Destination::Queue(writer.clone()));
    let volume = start_at(format, level, destination);
    if let Err(error) = &writer {
        warn!("the host waits for whoever reads its log: there is no thread that could: {error}");
    }
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        // By the log, because whoever writes to standard error himself waits for its reader.
        error!("thread {:?} {panic}{}", thread.name().unwrap_or("without a name"), backtrace());
    }));
    (volume, HostLog { status, writer: writer.ok() })
}

/// If the environment asks for one (`RUST_BACKTRACE`).
fn backtrace() -> String {
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured { format!("\n{backtrace}") } else { String::new() }
}

/// The log of a host. However the host ends, what is left of its log is written, unless that takes too long.
pub(crate) struct HostLog {
    pub(crate) status: LogStatus,
    writer: Option<LogWriter>,
}

impl HostLog {
    /// Writes what is left; for who ends the process himself.
    pub(crate) fn closer(&self) -> impl FnOnce() + Send + use<> {
        let writer = self.writer.clone();
        move || writer.iter().for_each(|writer| writer.close(CLOSE_TIME_MAX))
    }
}

impl Drop for HostLog {
    fn drop(&mut self) {
        self.closer()();
    }
}

fn start_at(format: Option<LogFormat>, level: LevelFilter, destination: Destination) -> Volume {
    let (filter, handle) = reload::Layer::new(targets(level));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(destination);
    let started = match format.unwrap_or(LogFormat::Human) {
        LogFormat::Human => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
            registry.with(layer.event_format(Human { colour })).try_init()
        }
        LogFormat::Json => {
            let layer = layer.json().flatten_event(true).with_current_span(false);
            registry.with(layer.map_event_format(Json)).try_init()
        }
    };
    // It is started once, at the top of the program; an embedding program may have its own.
    drop(started);
    Volume(handle)
}

/// Where lines go. Each comes in one piece.
enum Destination {
    /// Standard error.
    AtOnce,
    Queue(LogWriter),
}

impl<'a> MakeWriter<'a> for Destination {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &Destination {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            // There is nowhere else to tell that it cannot be written.
            Destination::AtOnce => drop(io::Write::write_all(&mut io::stderr(), line)),
            Destination::Queue(writer) => writer.push(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn targets(level: LevelFilter) -> Targets {
    // Of the libraries only what may need a look; their rest is for who debugs them.
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        // It reports as errors what the broker crate expects and handles.
        .with_target("lapin", LevelFilter::OFF)
        // What it says of a certificate the gate says, too, to whom it concerns.
        .with_target("rustls_platform_verifier", LevelFilter::OFF)
        .with_target("notify_host", level)
        .with_target("broker", level)
        .with_target(LOG_TARGET, level)
}

/// `2026-11-24T12:00:00.123Z INFO  message key=value`, with a plugin's name in front of its own lines.
struct Human {
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let level = *event.metadata().level();
        write!(out, "{:.3} ", jiff::Timestamp::now())?;
        if self.colour {
            write!(out, "\x1b[{}m{level:<5}\x1b[0m ", colour_of(level))?;
        } else {
            write!(out, "{level:<5} ")?;
        }
        if event.metadata().target() == LOG_TARGET {
            // Its own fields say what the event was; ours would repeat it on every line.
            write!(out, "[{}] ", line.plugin)?;
            writeln!(out, "{}{}", line.message, line.data)
        } else {
            if !line.plugin.is_empty() {
                line.fields.insert_str(0, &format!(" plugin={}", line.plugin));
            }
            writeln!(out, "{}{}{}", line.message, line.fields, line.data)
        }
    }
}

/// One JSON object per line. JSON itself leaves some characters as they are that drive a terminal,
/// and an operator looks at such a log, too.
struct Json<F>(F);

impl<S, N, F> FormatEvent<S, N> for Json<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        if is_plain(line) {
            out.write_str(line)?;
        } else {
            out.write_str(&printable_json(line))?;
        }
        out.write_char('\n')
    }
}

/// Escapes what JSON does not; such characters only occur within its texts.
pub(crate) fn printable_json(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    for character in json.chars() {
        if is_active(character) {
            // Writing to a String does not fail.
            let _ = write!(printable, "\\u{:04x}", u32::from(character));
        } else {
            printable.push(character);
        }
    }
    printable
}

fn colour_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// The parts of one event.
#[derive(Default)]
struct Line {
    message: String,
    plugin: String,
    data: String,
    fields: String,
}

impl Line {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let part = match field.name() {
            "message" => &mut self.message,
            "plugin" => &mut self.plugin,
            "data" => {
                self.data.push(' ');
                &mut self.data
            }
            name => {
                self.fields.extend([" ", name, "="]);
                &mut self.fields
            }
        };
        // Writing to a String does not fail.
        let _ = Printable { out: part, newlines: 0 }.write_fmt(value);
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }
}

/// Text that came from outside must not drive the operator's terminal, nor look like a line of
/// the host's own: control characters are escaped, further lines are indented.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    // Writing to a String does not fail.
    let _ = Printable { out: &mut printable, newlines: 0 }.write_str(text);
    printable
}

/// Makes of what is written to it a [`printable`] text.
struct Printable<'a> {
    out: &'a mut String,
    /// Ends of lines that something must follow before they count.
    newlines: usize,
}

impl fmt::Write for Printable<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if is_plain(text) {
            if !text.is_empty() {
                self.begin_lines();
                self.out.push_str(text);
            }
            return Ok(());
        }
        for character in text.chars() {
            if character == '\n' {
                self.newlines += 1;
                continue;
            }
            self.begin_lines();
            match character {
                '\t' => self.out.push('\t'),
                active if is_active(active) => self.out.extend(active.escape_default()),
                other => self.out.push(other),
            }
        }
        Ok(())
    }
}

impl Printable<'_> {
    fn begin_lines(&mut self) {
        for _ in 0..std::mem::take(&mut self.newlines) {
            self.out.push_str("\n    ");
        }
    }
}

/// Of a text, looked at together.
const PIECE_BYTES: usize = 64;

/// Whether all of it shows as it is, as far as a look at the bytes can tell: most lines do.
fn is_plain(text: &str) -> bool {
    // Piece by piece, so that many bytes are compared at once.
    let is_plain = |piece: &[u8]| piece.iter().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'));
    text.as_bytes().chunks(PIECE_BYTES).all(is_plain)
}

/// Whether a terminal does something other than to show it. Marks that turn the direction of
/// writing can make a line look like another.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_drive_a_terminal_or_forge_a_line() {
        assert_eq!(printable("a\u{1b}[2Jb\r\u{9b}c"), "a\\u{1b}[2Jb\\r\\u{9b}c");
        assert_eq!(printable("one\n2026 INFO two\n"), "one\n    2026 INFO two");
        assert_eq!(printable("Получено\t…"), "Получено\t…");
        assert_eq!(printable("\n\none\n\n"), "\n    \n    one");
        let (piece, rest) = ("x".repeat(PIECE_BYTES), "y".repeat(PIECE_BYTES / 2));
        assert_eq!(
            printable(&format!("{piece}{rest}\u{7f}")),
            format!("{piece}{rest}\\u{{7f}}"),
            "beyond the first piece"
        );
    }

    #[test]
    fn json_cannot_drive_a_terminal_either() {
        let text = "a\u{1b}[2J\r\n\u{9b}c\u{202e}\u{7f}…";
        let json = printable_json(&serde_json::to_string(text).unwrap());
        assert_eq!(json, r#""a\u001b[2J\r\n\u009bc\u202e\u007f…""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
