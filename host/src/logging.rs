//! Logging: one line of text per event for people, or one JSON object per line for machines.
//!
//! Log lines go to standard error. A command writes each line directly; a host writes through [`LogWriter`], which
//! never blocks its callers.

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

/// Starts logging for a command. Without a format, lines are for people.
pub(crate) fn start(format: Option<LogFormat>, level: LevelFilter) -> LogLevelHandle {
    start_at(format, level, Destination::AtOnce)
}

/// Starts logging for a host that holds up to `prefetch` messages.
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
        // Through the log writer: a direct write to standard error would wait for its reader.
        error!("thread {:?} {panic}{}", thread.name().unwrap_or("without a name"), backtrace());
    }));
    (level, HostLog { status, writer: writer.ok() })
}

/// Returns a backtrace if the environment asks for one (`RUST_BACKTRACE`).
fn backtrace() -> String {
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured { format!("\n{backtrace}") } else { String::new() }
}

/// The log of a host. Dropping it writes the remaining lines, within a time limit.
pub(crate) struct HostLog {
    pub(crate) status: LogStatus,
    writer: Option<LogWriter>,
}

impl HostLog {
    /// Returns a function that writes the remaining lines, for code that exits the process itself.
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
    // Fails if logging has been started already, as in an embedding program. Then that one stays.
    drop(started);
    // Reloading fails only if the subscriber is gone.
    LogLevelHandle::new(move |level| drop(handle.reload(targets(level))))
}

/// Destination of log lines. Each line arrives in one piece.
enum Destination {
    /// Standard error, written directly.
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
            // A failed write to the log cannot be reported anywhere.
            Destination::AtOnce => drop(io::Write::write_all(&mut io::stderr(), line)),
            Destination::Queue(writer) => writer.push(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Crates whose lines are the host's own.
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
    // Libraries log warnings only; their other lines serve whoever debugs them.
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        // lapin logs errors that the broker crate expects and handles.
        .with_target("lapin", LevelFilter::OFF)
        // The HTTP gate reports certificate problems itself, to those concerned.
        .with_target("rustls_platform_verifier", LevelFilter::OFF)
        .with_target(LOG_TARGET, level)
        .with_targets(OWN_CRATES.map(|name| (name, level)))
}

/// Formats `2026-11-24T12:00:00.123Z INFO  message key=value`. A plugin's own lines begin with the plugin's name.
struct Human {
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = LogLine::default();
        event.record(&mut line);
        let level = *event.metadata().level();
        write!(out, "{:.3} ", jiff::Timestamp::now())?;
        if self.colour {
            write!(out, "\x1b[{}m{level:<5}\x1b[0m ", colour_of(level))?;
        } else {
            write!(out, "{level:<5} ")?;
        }
        if event.metadata().target() == LOG_TARGET {
            // A plugin's line has fields of its own. The event's would repeat on every line.
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

/// Formats one JSON object per line. JSON leaves some terminal control characters unescaped, and operators view such
/// logs in terminals, so they are escaped here.
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

/// The parts of one log line.
#[derive(Default)]
struct LogLine {
    message: String,
    plugin: String,
    data: String,
    fields: String,
}

impl LogLine {
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

impl Visit for LogLine {
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
