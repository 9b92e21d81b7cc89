//! Keeps a running host as its operator wants it: follows the plugin folder, holds sessions with the broker, takes over
//! changed settings, and answers the commands that reach a running host.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

pub mod control;
pub mod reconcile;
pub mod reload;
pub mod sessions;
