//! What nobody has been granted.

use wasmtime::component::Resource;

use crate::plugin::Guest;
use crate::plugin::contract::types::HostError;
use crate::plugin::contract::{http, mail, secrets, types};

/// A secret that was opened. There is none: opening is denied.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub enum Secret {}

fn denied<T>(capability: &str) -> Result<T, HostError> {
    Err(HostError::Denied(format!("this plugin has no grant for {capability}")))
}

impl types::Host for Guest {}

impl secrets::Host for Guest {
    async fn open(&mut self, name: String) -> Result<Resource<Secret>, HostError> {
        self.calls.count("secrets.open");
        denied(&format!("the secret {name:?}"))
    }
}

impl secrets::HostSecret for Guest {
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

impl http::Host for Guest {
    async fn send(&mut self, _request: http::Request) -> Result<http::Response, HostError> {
        self.calls.count("http.send");
        denied("http")
    }
}

impl mail::Host for Guest {
    async fn send(&mut self, _message: mail::Message) -> Result<String, HostError> {
        self.calls.count("mail.send");
        denied("mail")
    }
}
