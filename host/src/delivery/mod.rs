//! A delivery is one event on its way to one plugin.
//!
//! A message is acknowledged when each of its deliveries is settled: done, or handed to a durable
//! queue whose broker has confirmed it. If the host dies before that, the broker offers the
//! message again. Only this module acknowledges. Nothing here knows RabbitMQ, SQLite or wasmtime.

mod dead_letter;
mod policy;
mod route;
mod settle;
mod source;

pub(crate) use crate::delivery::route::Plugins;
pub(crate) use crate::delivery::source::{Dispatcher, Ended};
