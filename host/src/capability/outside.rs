//! The outside is what plugins reach through the host: HTTP, secrets, the mail relay.
//!
//! The host has one [`Outside`]; each version of a plugin has its [`Reach`] into it, which its grants
//! make, and which all of its attempts share.

use std::sync::Arc;

use crate::capability::preview::Preview;
use crate::capability::vault::Vault;
use crate::config::{HostConfig, PluginConfig};
use crate::egress::{Egress, Gate, Resolver, Trust};

/// What all plugins share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outside {
    egress: Egress,
}

/// What one plugin may reach.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// The values of its secrets.
    pub(crate) vault: Arc<Vault>,
    /// Somebody watches what goes out, or keeps it in.
    pub(crate) preview: Option<Preview>,
    pub(crate) gate: Gate,
}

impl Outside {
    /// Opens nothing and reaches nobody. The error is one sentence.
    pub(crate) fn new(config: &HostConfig) -> anyhow::Result<Self> {
        let trust = Arc::new(Trust::with(&config.egress_ca)?);
        Ok(Self { egress: Egress { resolver: Resolver::System, trust } })
    }

    /// What a plugin with this toml may reach. The error is one sentence, without the plugin's name.
    pub(crate) fn reach(
        &self,
        _name: &str,
        config: &PluginConfig,
        vault: Arc<Vault>,
        preview: Option<Preview>,
    ) -> anyhow::Result<Arc<Reach>> {
        let preview = preview.map(|preview| preview.hiding(Arc::clone(&vault)));
        let gate = Gate::new(self.egress.clone(), config.grants.origins(), config.grants.networks.clone());
        Ok(Arc::new(Reach { vault, preview, gate }))
    }
}
