//! A delivery is one event on its way to one plugin.
//!
//! A message is acknowledged when each of its deliveries is settled: done, or handed to a durable
//! queue whose broker has confirmed it. If the host dies before that, the broker offers the
//! message again. Nothing here knows RabbitMQ, SQLite or wasmtime.

mod backlog;
mod because;
mod breaker;
mod bucket;
mod candidates;
pub(crate) mod clock;
mod duplicates;
mod entry;
mod herald;
mod line;
mod pace;
mod policy;
mod pump;
mod quarantine;
mod queues;
mod registry;
mod route;
mod runner;
mod scribe;
mod session;
mod settle;
mod slots;
mod source;
mod stall;
mod trail;
mod unreadable;
mod vitals;
mod worker;

pub(crate) use crate::delivery::because::because;
pub(crate) use crate::delivery::duplicates::Duplicates;
pub(crate) use crate::delivery::policy::Fault;
pub(crate) use crate::delivery::quarantine::{CODE as QUARANTINED, Quarantine};
pub(crate) use crate::delivery::queues::make as make_queues;
pub(crate) use crate::delivery::registry::{Registry, Runners};
pub(crate) use crate::delivery::route::{Verdict, verdict};
pub(crate) use crate::delivery::runner::{Health, Runner};
pub(crate) use crate::delivery::session::{Dispatcher, Ended, Opened};
pub(crate) use crate::delivery::settle::INEXPRESSIBLE;
pub(crate) use crate::delivery::source::Unwanted;
pub(crate) use crate::delivery::trail::{Recipient, Trail};
pub(crate) use crate::delivery::unreadable::{raw_properties, raw_properties_sha256};
pub(crate) use crate::delivery::vitals::{Vital, Vitals};
