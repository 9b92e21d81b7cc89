//! Real dependencies for tests: guarded child processes, a private RabbitMQ node.
//!
//! Everything that a test starts here ends with the test process, even if that is killed with
//! SIGKILL, and leaves no folder behind. A failure panics with one sentence, because this is how a
//! test fails. Test processes share nothing: tests of several packages may run side by side.

#![allow(clippy::missing_panics_doc, reason = "in a library for tests, panicking is how a failure is told")]

mod child_guard;
pub mod languages;
mod patience;
mod ports;
pub mod proxy;
pub mod rabbitmq;
pub mod raw_publisher;
mod reaper;
pub mod receiver;

pub use child_guard::ChildGuard;
pub use patience::{eventually, eventually_some};
pub use ports::free_port;
