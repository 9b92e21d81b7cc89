//! Delivers events to plugins. A delivery is one event on its way to one plugin.
//!
//! A message is acknowledged when each of its deliveries is settled: done, or handed to a durable queue whose
//! broker has confirmed it. If the host dies before that, the broker offers the message again. Nothing in this
//! crate depends on RabbitMQ, SQLite or wasmtime in particular.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

mod about_health;
mod admission;
mod attempt;
mod backlog;
mod breaker;
mod consume_loop;
mod deliver;
mod delivery_headers;
mod duplicates;
mod give_up;
mod health_events;
mod observer;
mod permit;
mod policy;
mod quarantine;
mod queues;
mod registry;
mod route;
mod route_cache;
mod route_reason;
mod runner;
mod session;
mod settle;
mod slots;
mod source;
mod stall;
mod status;
mod throttle;
mod token_bucket;
mod unreadable;
mod verdict;
mod wait_queue;
mod worker;

pub use crate::delivery_headers::{DeliveryHeaders, Recipient};
pub use crate::duplicates::Duplicates;
pub use crate::observer::{AttemptReport, AttemptResult, DeliveryObserver, Next, ReceivedContext, Recorded, Round};
pub use crate::policy::Fault;
pub use crate::quarantine::{CODE as QUARANTINED, Quarantine};
pub use crate::queues::make as make_queues;
pub use crate::registry::{Registry, Runners};
pub use crate::route::{Routing, Subscribed};
pub use crate::route_reason::because;
pub use crate::runner::{Health, Runner};
pub use crate::session::{Dispatcher, Ended, Opened};
pub use crate::settle::INEXPRESSIBLE;
pub use crate::source::UnmatchedTypes;
pub use crate::status::{DeliveryState, DeliveryStatus};
pub use crate::unreadable::{raw_properties, raw_properties_sha256};
pub use crate::verdict::{Rule, Verdict, verdict};
