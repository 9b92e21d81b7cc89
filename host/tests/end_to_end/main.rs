//! Runs the real programs with real plugins: order-cli, a broker and the host.
//!
//! Run by `cargo xtask test`, which builds the plugins and passes their paths.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod admin;
#[path = "../guests/assemble.rs"]
mod assemble;
mod broker_away;
mod broker_crash;
mod bytes;
mod chat;
mod churn;
mod cluster;
mod configuration;
mod contract;
mod crash;
mod dashboard;
mod dead_letters;
mod debian_package;
mod documents;
mod drain;
mod dropin;
mod duplicates;
mod egress;
mod explain;
mod full_disk;
mod health;
mod hostile;
mod interop;
mod isolation;
mod journal;
mod languages;
mod load;
mod log_sink;
mod machine_faults;
mod mail;
mod manual;
mod monitoring;
mod neighbours;
mod operating;
mod orders;
mod pacing;
mod pauses;
mod plugin_tools;
mod preview;
mod quarantine;
mod retries;
mod routing;
mod secrets;
mod service_manager;
mod shipped;
mod template_helpers;
mod top;
mod topology;
mod tracing;
mod unreadable;
mod webhook;
mod webhook_answers;
mod world;

/// Makes one test for each engine of each `fn NAME(world: &World)`.
macro_rules! on_both_engines {
    ($($(#[$attribute:meta])* fn $name:ident($world:ident: &World) $body:block)*) => {
        $($(#[$attribute])* fn $name($world: &crate::world::World) $body)*

        mod sqlite {
            $(#[test] fn $name() { super::$name(&crate::world::World::on_sqlite()); })*
        }
        mod rabbitmq {
            $(#[test] fn $name() { super::$name(&crate::world::World::on_rabbitmq()); })*
        }
    };
}
pub(crate) use on_both_engines;
