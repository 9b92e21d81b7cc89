//! Keeps a running host as its operator wants it: follows the plugin folder, holds the session with the broker,
//! applies changed settings, and knows whether the host is ready.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

pub mod control;
pub mod readiness;
pub mod reconcile;
pub mod reload;
pub mod sessions;
