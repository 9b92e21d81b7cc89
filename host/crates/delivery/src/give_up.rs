//! Gives up a message that no plugin gets to see: it is no event, or it breaks sessions.

use broker::{BrokerError, Delivery, Message};
use event::clock;
use telemetry::metrics::GivenUp;
use tracing::warn;

use crate::delivery_headers::DeliveryHeaders;
use crate::policy::Fault;
use crate::quarantine::{DeadLetterForm, QuarantineVerdict};
use crate::settle::write_dead;
use crate::unreadable;
use crate::worker::Worker;

/// Header of a dead letter with the message's properties, if they could not be carried as properties.
const ORIGINAL_PROPERTIES: &str = "x-original-properties";

impl Worker {
    /// Dead-letters a message that is not an event.
    pub(super) async fn give_up(
        &self,
        delivery: &Delivery,
        delivery_headers: DeliveryHeaders,
        fault: Fault,
    ) -> Result<(), BrokerError> {
        let letters = |delivery_headers: &DeliveryHeaders| match &delivery.unreadable {
            Some(unreadable) => {
                unreadable::letters(&delivery.message, unreadable, delivery_headers, self.broker.headers_bytes_max())
            }
            None => vec![delivery_headers.write(&delivery.message)],
        };
        self.give_up_as(GivenUp::Undecodable, delivery, letters, delivery_headers, fault).await
    }

    /// Dead-letters a message that breaks sessions, without looking into it.
    pub(super) async fn set_aside(
        &self,
        delivery: &Delivery,
        delivery_headers: DeliveryHeaders,
        verdict: QuarantineVerdict,
    ) -> Result<(), BrokerError> {
        let QuarantineVerdict { form, fault } = verdict;
        let Message { body, properties } = &delivery.message;
        let mut plain = Message { body: body.clone(), ..Message::default() };
        let message = match form {
            DeadLetterForm::Whole => &delivery.message,
            DeadLetterForm::PropertiesAsText => {
                let text = serde_json::to_string(properties).unwrap_or_default();
                plain.properties.headers.insert(ORIGINAL_PROPERTIES.to_owned(), text.into());
                &plain
            }
            DeadLetterForm::BodyOnly => &plain,
        };
        self.give_up_as(
            GivenUp::Quarantined,
            delivery,
            |delivery_headers| vec![delivery_headers.write(message)],
            delivery_headers,
            fault,
        )
        .await
    }

    async fn give_up_as(
        &self,
        why: GivenUp,
        delivery: &Delivery,
        letters: impl FnOnce(&DeliveryHeaders) -> Vec<Message>,
        mut delivery_headers: DeliveryHeaders,
        fault: Fault,
    ) -> Result<(), BrokerError> {
        let (exchange, routing_key) = (&delivery_headers.exchange, &delivery_headers.routing_key);
        warn!(exchange, routing_key, code = fault.code, "dead-lettered a message: {}", fault.reason);
        delivery_headers.given_up = Some(why.as_str().to_owned());
        delivery_headers.last_at = clock::now();
        delivery_headers.fault = Some(fault);
        for letter in letters(&delivery_headers) {
            write_dead(&self.broker, &self.source, letter).await?;
        }
        self.observer.undecodable(delivery, &delivery_headers);
        Ok(())
    }
}
