//! The outside is what plugins reach through the host: HTTP, secrets, the mail relay.
//!
//! The host has one [`Outside`]; each version of a plugin has its [`Reach`] into it, which its grants
//! make, and which all of its attempts share.

use std::sync::Arc;

use crate::capability::preview::Preview;
use crate::capability::vault::Vault;
use crate::config::{Grants, HostConfig, PluginConfig};
use crate::egress::{Egress, Gate, Resolver, Trust};
use crate::relay::Relay;

/// What all plugins share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outside {
    egress: Egress,
    /// `None`: the operator names none.
    relay: Option<Arc<Relay>>,
}

/// What one plugin may reach.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// The values of its secrets.
    pub(crate) vault: Arc<Vault>,
    pub(crate) grants: Grants,
    pub(crate) relay: Option<Arc<Relay>>,
    /// Somebody watches what goes out, or keeps it in.
    pub(crate) preview: Option<Preview>,
    pub(crate) gate: Gate,
}

impl Outside {
    /// Opens nothing and reaches nobody. The error is one sentence.
    pub(crate) fn new(config: &HostConfig) -> anyhow::Result<Self> {
        let trust = Arc::new(Trust::with(&config.egress_ca)?);
        let relay = config.mail.as_ref().map(|mail| Arc::new(Relay::new(mail, trust.extra_roots())));
        Ok(Self { egress: Egress { resolver: Resolver::System, trust }, relay })
    }

    /// For what the host itself sends.
    pub(crate) fn egress(&self) -> Egress {
        self.egress.clone()
    }

    /// What a plugin with this toml may reach.
    pub(crate) fn reach(&self, config: &PluginConfig, vault: Arc<Vault>, preview: Option<Preview>) -> Arc<Reach> {
        let preview = preview.map(|preview| preview.hiding(Arc::clone(&vault)));
        let gate = Gate::new(self.egress.clone(), config.grants.origins(), config.grants.networks.clone());
        let (grants, relay) = (config.grants.clone(), self.relay.clone());
        Arc::new(Reach { vault, grants, relay, preview, gate })
    }
}
