//! The egress gate is the one way out for what plugins send over HTTP.
//!
//! A request leaves only for an origin that is granted, to an address that is public or granted: the host resolves the
//! name, looks at every answer, and dials what it has looked at. It has one deadline, from the first question to the
//! last byte, and bounds in all directions. Nothing here follows redirects, reads a proxy from the environment, or
//! sends anything twice that may have arrived.

mod address;
mod body;
mod connection;
mod dial;
mod failure;
mod gate;
mod pool;
mod request;
mod resolver;
mod socket;
mod target;
#[cfg(test)]
mod tests;
mod trust;

use std::sync::Arc;

pub use crate::egress::body::Body;
pub use crate::egress::connection::Head;
pub use crate::egress::failure::{EgressError, Step};
pub use crate::egress::gate::{Bounds, Gate, Response};
pub use crate::egress::request::{Request, belongs_to_the_host, parse_long_url, parse_url, parse_value};
pub use crate::egress::resolver::Resolver;
#[cfg(test)]
pub(crate) use crate::egress::resolver::Script;
pub use crate::egress::target::Target;
pub use crate::egress::trust::Trust;

/// What all gates share.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    pub resolver: Resolver,
    pub trust: Arc<Trust>,
}
