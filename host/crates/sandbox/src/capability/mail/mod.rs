//! Mail of a plugin through the host's SMTP relay, to recipients that the operator grants, from the operator's
//! sender.

mod compose;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::{Capability, Scope};
use contract::mail::{Host, Message};
use contract::types::HostError;
use outbound::smtp::MailFailure;
use state::digest::Digest;

use crate::capability::HostState;
use crate::capability::mail::compose::{Composed, Frame, compose, recipients};
use crate::capability::preview::Departure;

/// Time before the end of the call at which sending stops, so that the plugin learns which step the mail had reached.
const MARGIN: Duration = Duration::from_millis(100);

impl Host for HostState {
    async fn send(&mut self, message: Message) -> Result<String, HostError> {
        self.calls.count("mail.send");
        let mut mails = self.calls.iter().filter(|(name, _)| *name == "mail.send");
        let number = mails.next().map_or(1, |(_, count)| count);
        let access = &self.call.access;
        if access.grants.of(Capability::Mail).next().is_none() {
            return Err(HostError::Denied(
                "this plugin has no grant for mail: write mail = [\"ops@example.com\"] or [\"*@example.com\"] below [grants] in \
                 its toml"
                    .to_owned(),
            ));
        }
        let Some(relay) = &access.relay else {
            return Err(HostError::Denied(
                "this host has no mail relay: write [mail] with relay and from into the host's file, and name it by --config"
                    .to_owned(),
            ));
        };
        let all = recipients(&message).map_err(HostError::Invalid)?;
        for (written, address) in &all {
            let scope = Scope::new(Capability::Mail, address.as_ref()).map_err(HostError::Invalid)?;
            if !access.grants.cover(&scope) {
                return Err(HostError::Denied(format!(
                    "the recipient {written} is not granted to this plugin: add \"{scope}\" or \"*@{}\" to mail below [grants] in \
                     its toml",
                    address.domain()
                )));
            }
        }
        let message_id = message_id(&self.call.idempotency_key, number, relay.from().email.domain());
        let html = message.html.clone();
        let frame = Frame { from: relay.from(), message_id: &message_id, date: SystemTime::now() };
        let Composed { recipients, bytes } = compose(message, &frame).map_err(HostError::Invalid)?;
        let bytes = relay.signed(bytes).await.map_err(host_error)?;
        if let Some(preview) = access.preview() {
            let recipients = recipients.iter().map(ToString::to_string).collect();
            preview.note(Departure::Mail { recipients, message: bytes.clone(), html });
            if preview.is_dry {
                return Ok(message_id);
            }
        }
        let deadline = self.call.deadline.checked_sub(MARGIN).unwrap_or(self.call.deadline);
        let address = relay.address();
        let mut span = self.call.within.mail(&address.host, address.port, recipients.len());
        let secret_store = Arc::clone(&access.secret_store);
        let sent = relay.send(&recipients, &bytes, deadline, &move |text| secret_store.redact(text)).await;
        match &sent {
            Ok(()) => span.done(),
            Err(failure) => span.failed(failure.code(), ""),
        }
        drop(span);
        sent.map_err(host_error)?;
        Ok(message_id)
    }
}

fn host_error(failure: MailFailure) -> HostError {
    match failure {
        MailFailure::Misconfigured(reason) => HostError::Denied(reason),
        MailFailure::Later(reason) => HostError::Unavailable(reason),
        MailFailure::Refused(reason) => HostError::Refused(reason),
    }
}

/// Returns the same ID for the same mail on each attempt. It depends on the mail's position within the attempt, not
/// on its content, which may include the time.
fn message_id(idempotency_key: &str, number: u64, domain: &str) -> String {
    let digest = Digest::of(idempotency_key.as_bytes()).to_string();
    format!("<{digest:.32}.{number}@{domain}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_has_one_message_id_on_all_attempts_and_no_two_mails_share_one() {
        let id = message_id("key", 1, "example.com");
        assert_eq!(id, message_id("key", 1, "example.com"));
        assert_ne!(id, message_id("key", 2, "example.com"));
        assert_ne!(id, message_id("other", 1, "example.com"));
        assert!(id.starts_with('<') && id.ends_with(".1@example.com>"), "{id}");
    }

    #[test]
    fn a_failure_ends_as_whose_it_is_to_change_it() {
        let text = || "x".to_owned();
        assert!(matches!(host_error(MailFailure::Misconfigured(text())), HostError::Denied(_)));
        assert!(matches!(host_error(MailFailure::Later(text())), HostError::Unavailable(_)));
        assert!(matches!(host_error(MailFailure::Refused(text())), HostError::Refused(_)));
    }
}
