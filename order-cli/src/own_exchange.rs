//! The exchange of a load without `--exchange`.

/// Name of the exchange, and of the queue that is bound to it.
pub(crate) const OWN_EXCHANGE: &str = "order-cli.load";
