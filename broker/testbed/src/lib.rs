//! The real things that tests run against: child processes on a leash, a private RabbitMQ node.
//!
//! What a test starts here ends with the test process, even when that is killed with SIGKILL,
//! and leaves no folder behind. Everything panics with one sentence when it cannot do its work,
//! because that is how a test fails. Nothing here is shared between test processes: tests of
//! several packages may run side by side.

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
