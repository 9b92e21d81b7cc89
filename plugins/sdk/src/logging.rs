//! Log macros with fields, in the style of the crate `tracing`: `info!(order_id = id, "sent to {recipient}")`.

use crate::Level;
use crate::bindings::notify::plugin::log;

/// Writes a log line. The macros call this.
pub fn write(level: Level, message: &str, fields: &[(&str, String)]) {
    let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    log::write(level, message, &fields);
}

/// Writes to the host's log at the given [`Level`], if the host wants that level.
#[macro_export]
macro_rules! log {
    ($level:expr, $($field:ident = $value:expr,)* $message:literal $(, $argument:expr)* $(,)?) => {
        if $crate::bindings::notify::plugin::log::enabled($level) {
            $crate::write(
                $level,
                &::std::format!($message $(, $argument)*),
                &[$((::std::stringify!($field), ::std::string::ToString::to_string(&$value))),*],
            );
        }
    };
}

/// Logs every step, for the plugin's author.
#[macro_export]
macro_rules! trace {
    ($($all:tt)+) => { $crate::log!($crate::Level::Trace, $($all)+) };
}

/// Logs details for finding a fault.
#[macro_export]
macro_rules! debug {
    ($($all:tt)+) => { $crate::log!($crate::Level::Debug, $($all)+) };
}

/// Logs a completed action, for the operator.
#[macro_export]
macro_rules! info {
    ($($all:tt)+) => { $crate::log!($crate::Level::Info, $($all)+) };
}

/// Logs something that the operator may need to check.
#[macro_export]
macro_rules! warn {
    ($($all:tt)+) => { $crate::log!($crate::Level::Warn, $($all)+) };
}

/// Logs an error, for the operator.
#[macro_export]
macro_rules! error {
    ($($all:tt)+) => { $crate::log!($crate::Level::Error, $($all)+) };
}
