//! Secrets by reference: the guest names one, and the host fills in its value on the way out.

use wasmtime::component::Resource;

use crate::capability::denied;
use crate::plugin::Guest;
use crate::plugin::contract::secrets::{Host, HostSecret};
use crate::plugin::contract::types::HostError;

/// A secret that a guest has opened.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Secret {
    _name: String,
}

impl Host for Guest {
    async fn open(&mut self, name: String) -> Result<Resource<Secret>, HostError> {
        self.calls.count("secrets.open");
        denied(&format!("the secret {name:?}"))
    }
}

impl HostSecret for Guest {
    async fn hmac_sha256(&mut self, _secret: Resource<Secret>, _data: Vec<u8>) -> Result<Vec<u8>, HostError> {
        self.calls.count("secrets.hmac-sha256");
        denied("secrets")
    }

    async fn reveal(&mut self, _secret: Resource<Secret>) -> Result<String, HostError> {
        self.calls.count("secrets.reveal");
        denied("secrets")
    }

    async fn drop(&mut self, _secret: Resource<Secret>) -> wasmtime::Result<()> {
        Ok(())
    }
}
