//! The outside is what plugins reach through the host: HTTP, secrets, the mail relay.
//!
//! The host has one [`Outside`]; each version of a plugin has its [`Reach`] into it, which its grants
//! make, and which all of its attempts share.

use std::sync::Arc;

use crate::capability::preview::Preview;
use crate::config::{HostConfig, PluginConfig};

/// What all plugins share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outside {}

/// What one plugin may reach.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Somebody watches what goes out, or keeps it in.
    pub(crate) preview: Option<Preview>,
}

impl Outside {
    /// Opens nothing and reaches nobody. The error is one sentence.
    pub(crate) fn new(_config: &HostConfig) -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// What a plugin with this toml may reach. The error is one sentence, without the plugin's name.
    pub(crate) fn reach(
        &self,
        _name: &str,
        _config: &PluginConfig,
        preview: Option<Preview>,
    ) -> anyhow::Result<Arc<Reach>> {
        Ok(Arc::new(Reach { preview }))
    }
}
