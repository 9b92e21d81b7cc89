//! A plugin's mail, through the host's relay.

use crate::capability::denied;
use crate::plugin::Guest;
use crate::plugin::contract::mail::{Host, Message};
use crate::plugin::contract::types::HostError;

impl Host for Guest {
    async fn send(&mut self, _message: Message) -> Result<String, HostError> {
        self.calls.count("mail.send");
        denied("mail")
    }
}
