//! How a call of a plugin can fail without an answer of the plugin's.

use std::time::Duration;

use wasmtime::{Trap, WasmBacktrace};

use crate::plugin::limits::Limiter;

/// Characters of a guest's backtrace that are kept.
const BACKTRACE_CHARACTERS_MAX: usize = 4000;

/// What went wrong in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PluginFailure {
    /// It trapped, or answered what makes no sense.
    #[error("it trapped: {reason}{}", at(.backtrace))]
    Trapped {
        reason: String,
        /// The guest's frames, innermost first; empty where there are none.
        backtrace: String,
    },
    /// It did not come back in time.
    #[error("it passed its time limit of {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// It wanted more memory than it may have.
    #[error("it ran out of memory: its limit is {0} MiB")]
    OutOfMemory(usize),
    /// The host's own code failed in the call.
    #[error("the host failed in it: {0}")]
    HostPanicked(String),
}

fn at(backtrace: &str) -> String {
    if backtrace.is_empty() { String::new() } else { format!("\n{backtrace}") }
}

impl PluginFailure {
    /// Short and stable, for labels.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Trapped { .. } => "trapped",
            Self::TimedOut(_) => "timed-out",
            Self::OutOfMemory(_) => "out-of-memory",
            Self::HostPanicked(_) => "host-panicked",
        }
    }

    /// From what the engine says.
    pub(crate) fn of(error: &wasmtime::Error, limiter: &Limiter, memory_bytes: usize) -> Self {
        if limiter.refused_memory {
            return Self::OutOfMemory(memory_bytes >> 20);
        }
        let reason = if limiter.refused_table {
            "its table grew past its limit".to_owned()
        } else if let Some(trap) = error.downcast_ref::<Trap>() {
            trap.to_string()
        } else {
            error.root_cause().to_string()
        };
        let mut backtrace = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string).unwrap_or_default();
        if let Some((end, _)) = backtrace.char_indices().nth(BACKTRACE_CHARACTERS_MAX) {
            backtrace.truncate(end);
        }
        Self::Trapped { reason, backtrace: backtrace.trim_end().to_owned() }
    }
}
