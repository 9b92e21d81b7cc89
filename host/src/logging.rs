//! The log: for people, one line of text per event; for machines, one JSON object per line.
//!
//! It goes to standard error: a command writes each line at once, a host by its [`LogWriter`], which keeps nobody waiting.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};
use std::{panic, thread};

use config::LogFormat;
use event::text::{Printable, is_plain, printable_json};
use sandbox::capability::LOG_TARGET;
use telemetry::LogLevelHandle;
use telemetry::log_writer::{CLOSE_TIME_MAX, LogStatus, LogWriter};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts it for a command. `None`: for people.
pub(crate) fn start(format: Option<LogFormat>, level: LevelFilter) -> LogLevelHandle {
    start_at(format, level, Destination::AtOnce)
}

/// Starts it for a host that holds up to so many messages.
pub(crate) fn start_host(format: Option<LogFormat>, level: LevelFilter, prefetch: u16) -> (LogLevelHandle, HostLog) {
    let status = LogStatus::new(usize::from(prefetch));
    let writer = LogWriter::start(status.clone());
    let destination = writer.as_ref().map_or(Destination::AtOnce, |writer| Destination::Queue(writer.clone()));
    let level = start_at(format, level, destination);
    if let Err(error) = &writer {
        warn!("the host waits for whoever reads its log: there is no thread that could: {error}");
    }
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        // By the log, because whoever writes to standard error himself waits for its reader.
        error!("thread {:?} {panic}{}", thread.name().unwrap_or("without a name"), backtrace());
    }));
    (level, HostLog { status, writer: writer.ok() })
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

fn start_at(format: Option<LogFormat>, level: LevelFilter, destination: Destination) -> LogLevelHandle {
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
    // The only error is that the log is gone.
    LogLevelHandle::new(move |level| drop(handle.reload(targets(level))))
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

/// The crates whose lines are the host's own.
const OWN_CRATES: [&str; 14] = [
    "admin",
    "broker",
    "config",
    "contract",
    "dead_letters",
    "delivery",
    "event",
    "journal",
    "notify_host",
    "outbound",
    "sandbox",
    "state",
    "supervisor",
    "telemetry",
];

fn targets(level: LevelFilter) -> Targets {
    // Of the libraries only what may need a look; their rest is for who debugs them.
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        // It reports as errors what the broker crate expects and handles.
        .with_target("lapin", LevelFilter::OFF)
        // What it says of a certificate the gate says, too, to whom it concerns.
        .with_target("rustls_platform_verifier", LevelFilter::OFF)
        .with_target(LOG_TARGET, level)
        .with_targets(OWN_CRATES.map(|name| (name, level)))
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
        let _ = Printable::new(part).write_fmt(value);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_of_the_host_may_log() {
        let crates = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/crates")).unwrap();
        let names = crates.map(|entry| entry.unwrap().file_name().into_string().unwrap().replace('-', "_"));
        let mut names: Vec<_> = names.chain(["broker", "notify_host"].map(str::to_owned)).collect();
        names.sort();
        assert_eq!(names, OWN_CRATES);
    }
}
