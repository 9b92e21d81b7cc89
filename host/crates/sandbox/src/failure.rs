//! How a call of a plugin can fail without an answer from the plugin.

use std::any::Any;
use std::time::Duration;

use config::Limits;
use telemetry::log_writer::LogFault;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::instance::Guest;

/// Maximum bytes kept of a guest's backtrace.
const BACKTRACE_BYTES_MAX: usize = 4000;
/// Maximum bytes kept of a reason.
const REASON_BYTES_MAX: usize = 1000;
/// Maximum bytes of a panic message before redaction.
const PANIC_BYTES_MAX: usize = 64 << 10;

/// How a call failed in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginFailure {
    /// The guest trapped, or gave an invalid answer.
    #[error("it trapped: {reason}{}", at(.backtrace))]
    Trapped {
        reason: String,
        /// The guest's frames, innermost first; empty if there are none.
        backtrace: String,
    },
    /// The call did not return in time.
    #[error("it passed its time limit of {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The guest wanted more memory than its limit.
    #[error("it ran out of memory: its limit is {0} MiB")]
    OutOfMemory(usize),
    /// The host's own code panicked during the call.
    #[error("the host failed in it: {0}")]
    HostPanicked(String),
    /// The plugin has answered, but its required log lines were not written. The machine's fault, not the plugin's.
    #[error("its log lines were not written: {0}")]
    LogNotWritten(LogFault),
}

fn at(backtrace: &str) -> String {
    if backtrace.is_empty() { String::new() } else { format!("\n{backtrace}") }
}

impl PluginFailure {
    /// Returns a short, stable code for labels.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Trapped { .. } => "trapped",
            Self::TimedOut(_) => "timed-out",
            Self::OutOfMemory(_) => "out-of-memory",
            Self::HostPanicked(_) => "host-panicked",
            Self::LogNotWritten(_) => "log-not-written",
        }
    }

    /// Applies `change` to text from the host's own code. Other failures are already fit to be shown.
    pub(super) fn map(self, change: impl Fn(String) -> String) -> Self {
        match self {
            Self::HostPanicked(said) => Self::HostPanicked(cut(change(said), REASON_BYTES_MAX)),
            Self::Trapped { .. } | Self::TimedOut(_) | Self::OutOfMemory(_) | Self::LogNotWritten(_) => self,
        }
    }

    /// Creates a failure from an engine error, without the values of the guest's secrets.
    pub(super) fn of(error: &wasmtime::Error, guest: &Guest) -> Self {
        let limits = &guest.host.limits;
        if guest.limiter.refused_memory {
            return Self::OutOfMemory(limits.memory_bytes >> 20);
        }
        let reason = if guest.limiter.refused_table {
            format!("its table grew past its limit of {} elements", limits.table_elements)
        } else {
            reason(error, limits)
        };
        let backtrace = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string).unwrap_or_default();
        // Redact before truncating: a value cut in half would not be found.
        let fit = |text, bytes_max| cut(guest.host.call.access.secret_store.redact(text), bytes_max);
        Self::Trapped {
            reason: fit(reason, REASON_BYTES_MAX),
            backtrace: fit(backtrace.trim_end().to_owned(), BACKTRACE_BYTES_MAX),
        }
    }

    /// Creates a failure from a panic of host code that the guest called. [`Self::map`] makes it fit to be shown.
    pub(super) fn of_panic(panic: Box<dyn Any + Send>) -> Self {
        let said = match panic.downcast::<String>() {
            Ok(said) => *said,
            Err(panic) => {
                panic.downcast::<&'static str>().map_or_else(|_| "a panic".to_owned(), |said| (*said).to_owned())
            }
        };
        Self::HostPanicked(cut(said, PANIC_BYTES_MAX))
    }
}

fn reason(error: &wasmtime::Error, limits: &Limits) -> String {
    if let Some(trap) = error.downcast_ref::<Trap>() {
        let said = trap.to_string();
        return said.strip_prefix("wasm trap: ").unwrap_or(&said).to_owned();
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return format!("it ended itself by an exit with code {code}, and must answer instead");
    }
    // These errors have no type of their own.
    let said = error.root_cause().to_string();
    if said.contains("fuel allocated for hostcalls") {
        return format!("it handed over more than its limit of {} KiB in one call", limits.host_call_bytes >> 10);
    }
    if said.contains("resource table has no free keys") || said.contains("store handle limit exceeded") {
        return format!("it holds more than its limit of {} handles", limits.handles);
    }
    said
}

/// Truncates text from a guest to this many bytes, and says so.
pub(super) fn cut(text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text;
    }
    format!("{}… (cut: it has {} bytes)", &text[..text.floor_char_boundary(bytes_max)], text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(cut("short".to_owned(), 5), "short");
        assert_eq!(cut("long é".to_owned(), 6), "long … (cut: it has 7 bytes)");
    }
}
