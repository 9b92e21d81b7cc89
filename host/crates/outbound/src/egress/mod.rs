//! The egress gate, the only way out for HTTP requests of plugins.
//!
//! A request leaves only for a granted origin, to an address that is public or granted. The host resolves the name,
//! checks every address, and dials only addresses that it has checked. One deadline covers everything from the lookup
//! to the last byte, and all sizes are bounded. Nothing here follows redirects, reads a proxy from the environment,
//! or resends a request that may have arrived.

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
mod urls;

use std::sync::Arc;

pub use crate::egress::body::Body;
pub use crate::egress::connection::Head;
pub use crate::egress::failure::{EgressError, ExchangeStep};
pub use crate::egress::gate::{Bounds, Gate, Response};
pub use crate::egress::request::{Request, belongs_to_the_host, parse_value};
pub use crate::egress::resolver::Resolver;
#[cfg(test)]
pub(crate) use crate::egress::resolver::Script;
pub use crate::egress::target::Target;
pub use crate::egress::trust::Trust;
pub use crate::egress::urls::{parse_long_url, parse_url};

/// State that all gates share.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    pub resolver: Resolver,
    pub trust: Arc<Trust>,
}
