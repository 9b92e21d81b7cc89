//! One HTTP exchange of a plugin's, through the egress gate.

use crate::capability::denied;
use crate::plugin::Guest;
use crate::plugin::contract::http::{Host, Request, Response};
use crate::plugin::contract::types::HostError;

impl Host for Guest {
    async fn send(&mut self, _request: Request) -> Result<Response, HostError> {
        self.calls.count("http.send");
        denied("http")
    }
}
