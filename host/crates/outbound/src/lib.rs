//! Everything that leaves the host: the gate for all HTTP, the operator's SMTP relay, and the secret values that are
//! filled in on the way out.
//!
//! Nothing here knows plugins. A destination is dialled only if its grant allows it.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

pub mod egress;
pub mod redact;
pub mod secret_value;
pub mod smtp;
