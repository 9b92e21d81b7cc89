//! Secrets by reference. The guest names a secret, and the host fills in its value on the way out, but only towards
//! the destinations that the operator granted for it.
//!
//! Signing has no destination: a guest may sign anything with each of its secrets, and send the signature wherever it
//! may send anything. The signature does not reveal the value, unless the value can be guessed.

use std::sync::Arc;

use config::{SecretGrant, secret_heading};
use contract::Secret;
use contract::secrets::{Host, HostSecret};
use contract::types::HostError;
use http::HeaderValue;
use outbound::secret_value::SecretValue;
use url::Url;
use wasmtime::component::Resource;
use wasmtime_wasi::WasiView as _;

use crate::capability::HostState;
use crate::capability::secret_store::StoredSecret;

/// Maximum characters shown of a name that a guest asks for.
const NAME_CHARACTERS_MAX: usize = 100;

/// A secret that a guest has opened, with its value at that time.
#[derive(Debug)]
pub struct OpenSecret {
    held: Arc<StoredSecret>,
    value: Arc<SecretValue>,
}

impl OpenSecret {
    fn grant(&self) -> &SecretGrant {
        &self.held.grant
    }

    /// Returns the text that replaces the value for display.
    pub fn instead(&self) -> String {
        self.held.instead()
    }

    /// Returns the value, if it may be sent to this URL.
    pub(crate) fn value_for(&self, url: &Url) -> Result<&SecretValue, HostError> {
        let SecretGrant { name, to, .. } = self.grant();
        if to.iter().any(|origin| origin.covers_url(url)) {
            return Ok(&self.value);
        }
        let origin = url.origin().ascii_serialization();
        let allowed: Vec<_> = to.iter().map(ToString::to_string).collect();
        let allowed = if allowed.is_empty() { "nowhere".to_owned() } else { format!("only to {}", allowed.join(", ")) };
        Err(HostError::Denied(format!(
            "the secret {name} may be sent {allowed}, and not to {origin}: see `to` below {} in the plugin's toml",
            secret_heading(name)
        )))
    }

    /// Returns the value for use in the URL itself.
    pub(crate) fn value_in(&self, url: &Url) -> Result<&SecretValue, HostError> {
        let value = self.value_for(url)?;
        value.check_for_url().map_err(|problem| self.invalid(&problem))?;
        Ok(value)
    }

    /// Returns a header with the value after a prefix, if it may be sent to this URL.
    pub(crate) fn header_for(&self, prefix: &str, url: &Url) -> Result<HeaderValue, HostError> {
        self.value_for(url)?.header(prefix).map_err(|problem| self.invalid(&problem))
    }

    fn hmac_sha256(&self, data: &[u8]) -> Result<Vec<u8>, HostError> {
        self.value.hmac_sha256(data).map_err(|problem| self.invalid(&problem))
    }

    fn reveal(&self) -> Result<String, HostError> {
        let SecretGrant { name, reveal, .. } = self.grant();
        if !reveal {
            return Err(HostError::Denied(format!(
                "the secret {name} may be used and not seen: if the plugin must see it, write reveal = true below {} in its \
                 toml",
                secret_heading(name)
            )));
        }
        self.value.text().map(str::to_owned).ok_or_else(|| self.invalid("its value is not UTF-8"))
    }

    fn invalid(&self, problem: &str) -> HostError {
        HostError::Invalid(format!("the secret {}: {problem}", self.grant().name))
    }
}

impl HostState {
    /// Returns the secret with this name, if it is granted.
    pub(crate) async fn granted_secret(&mut self, name: &str) -> Result<OpenSecret, HostError> {
        let secret_store = Arc::clone(&self.call.access.secret_store);
        let Some((held, value)) = secret_store.take(name).await else {
            // A plugin that was shown a value may pass it as a name.
            let name: String = secret_store.redact(name.to_owned()).chars().take(NAME_CHARACTERS_MAX).collect();
            return Err(HostError::Denied(format!(
                "the secret {name:?} is not granted: write {} in the plugin's toml, and below it env = \"VARIABLE\", file = \
                 \"PATH\" or credential = \"NAME\"",
                secret_heading(&name)
            )));
        };
        Ok(OpenSecret { held, value })
    }

    /// Returns a secret that the guest has opened.
    pub fn secret(&mut self, secret: &Resource<Secret>) -> Result<&OpenSecret, HostError> {
        let secret = self.ctx().table.get(&opened(secret));
        secret.map_err(|error| HostError::Invalid(format!("there is no such secret: {error}")))
    }
}

/// Converts the key into a handle for its entry in the table.
fn opened(key: &Resource<Secret>) -> Resource<OpenSecret> {
    Resource::new_borrow(key.rep())
}

impl Host for HostState {
    async fn open(&mut self, name: String) -> Result<Resource<Secret>, HostError> {
        self.calls.count("secrets.open");
        let secret = self.granted_secret(&name).await?;
        let secret = self.ctx().table.push(secret).map(|secret| Resource::new_own(secret.rep()));
        secret.map_err(|_| HostError::Quota(format!("it holds more than its limit of {} handles", self.limits.handles)))
    }
}

impl HostSecret for HostState {
    async fn hmac_sha256(&mut self, secret: Resource<Secret>, data: Vec<u8>) -> Result<Vec<u8>, HostError> {
        self.calls.count("secrets.hmac-sha256");
        self.secret(&secret)?.hmac_sha256(&data)
    }

    async fn reveal(&mut self, secret: Resource<Secret>) -> Result<String, HostError> {
        self.calls.count("secrets.reveal");
        self.secret(&secret)?.reveal()
    }

    async fn drop(&mut self, secret: Resource<Secret>) -> wasmtime::Result<()> {
        self.ctx().table.delete(Resource::<OpenSecret>::new_own(secret.rep()))?;
        Ok(())
    }
}
