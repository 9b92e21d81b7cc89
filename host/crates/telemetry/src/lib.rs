//! The host reports on its own work: counters and histograms, spans, and log lines on their way to standard error.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

mod level;
pub mod log_writer;
pub mod metrics;
pub mod spans;

pub use crate::level::LogLevelHandle;
