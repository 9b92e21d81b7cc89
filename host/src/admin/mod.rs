//! The admin surface is what a host shows of itself over HTTP: how it is, what it counts, what it did, and a page
//! for people. It hands on what an operator may do: the same that the commands do.
//!
//! It reads what the others say of themselves; delivery does not know that it exists. Without it, or with it broken,
//! events go their way.

mod api;
mod guard;
mod health;
mod page;
mod refusal;
mod server;

use std::path::PathBuf;
use std::sync::Arc;

use broker::BrokerUrl;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::admin::health::{Signs, reasons};
pub(crate) use crate::admin::server::listen;
use crate::config::HostConfig;
use crate::control;
use crate::delivery::Vitals;

/// What there is to show and to act upon.
pub(crate) struct Admin {
    pub(crate) config: Arc<HostConfig>,
    pub(crate) broker: BrokerUrl,
    pub(crate) control: control::Server,
    pub(crate) vitals: Arc<Vitals>,
    /// Its file. `None`: there is no journal.
    pub(crate) journal: Option<PathBuf>,
    pub(crate) started_at: Timestamp,
    /// The host is asked to stop.
    pub(crate) stop: CancellationToken,
}

impl Admin {
    /// Why the host is not ready; nothing if it is.
    pub(crate) fn reasons(&self) -> Vec<String> {
        reasons(&Signs {
            is_stopping: self.stop.is_cancelled(),
            plugins: self.control.registry.runners().len(),
            broker: &self.broker,
            queue: self.config.source.names.source(),
            folder: &self.config.plugins,
            vital: &self.vitals.look(),
        })
    }

    pub(crate) fn runs_no_plugin(&self) -> bool {
        self.control.registry.runners().is_empty()
    }
}
