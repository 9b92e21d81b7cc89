//! Publishes messages to one exchange, and returns once the broker has confirmed each.
//!
//! A missing exchange or queue is an error with advice; the publisher declares nothing. Only a load declares its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broker::{Broker, BrokerError, BrokerUrl, ConnectError, ConnectOptions, Message, Properties, Target};
use bytes::Bytes;
use uuid::Uuid;

use crate::exit::Failure;
use crate::order::OrderEvent;
use crate::trace::Trace;

/// Name that the broker's tools show and that consumers read in `app_id`.
const NAME: &str = "order-cli";
/// Time limit for closing the session. Everything is confirmed by then, so a clean close is only a courtesy.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The target of messages, and how long to wait.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// The broker.
    pub(crate) broker: BrokerUrl,
    /// The exchange, which must exist.
    pub(crate) exchange: String,
    /// Time limit for connecting, and for each confirmation.
    pub(crate) timeout: Duration,
    /// The trace of the messages.
    pub(crate) trace: Option<Trace>,
}

/// A session with a broker, for one exchange.
#[derive(Debug)]
pub(crate) struct Publisher {
    broker: Broker,
    destination: Destination,
}

impl Publisher {
    /// Opens the session.
    pub(crate) async fn connect(destination: Destination) -> Result<Self, Failure> {
        let Destination { broker: url, timeout, .. } = &destination;
        let options = ConnectOptions { name: NAME.to_owned(), timeout: *timeout };
        let broker = tokio::time::timeout(*timeout, Broker::connect(url, &options))
            .await
            .unwrap_or_else(|_| Err(ConnectError::TimedOut { broker: url.to_string(), seconds: timeout.as_secs() }))?;
        Ok(Self { broker, destination })
    }

    /// Adds the trace to a message.
    pub(crate) fn mark(&self, message: Message) -> Message {
        match &self.destination.trace {
            Some(trace) => trace.mark(message),
            None => message,
        }
    }

    /// Publishes, and returns once the message is safe in a queue. Calls may overlap.
    pub(crate) async fn publish(&self, routing_key: &str, message: &Message) -> Result<(), Failure> {
        let Destination { exchange, timeout, .. } = &self.destination;
        let target = Target::Exchange { exchange, routing_key };
        match tokio::time::timeout(*timeout, self.broker.publish(target, message)).await {
            Ok(published) => Ok(published?),
            Err(_) => Err(Failure::NotConfirmed { seconds: timeout.as_secs() }),
        }
    }

    /// Returns the exchange that messages go to.
    pub(crate) fn exchange(&self) -> &str {
        &self.destination.exchange
    }

    pub(crate) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Waits for the broker's answer, with the same time limit as for a confirmation.
    pub(crate) async fn ask<T>(&self, answer: impl Future<Output = Result<T, BrokerError>>) -> Result<T, Failure> {
        let timeout = self.destination.timeout;
        match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::NoAnswer { seconds: timeout.as_secs() }),
        }
    }

    /// Closes the session.
    pub(crate) async fn close(self) {
        // If the broker is too slow, dropping the connection will do.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.broker.close()).await;
    }
}

/// Returns the message for an order event.
pub(crate) fn order_message(event: &OrderEvent) -> Message {
    message(event.to_json().into(), Some(event.status.event_name().to_owned()), None)
}

/// Returns a message with a JSON body. Without an id, it gets a new one.
pub(crate) fn message(body: Bytes, event_type: Option<String>, id: Option<String>) -> Message {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let json = Message::json(body);
    Message {
        properties: Properties {
            message_id: Some(id.unwrap_or_else(|| Uuid::now_v7().to_string())),
            timestamp: Some(now.as_secs()),
            message_type: event_type,
            app_id: Some(NAME.to_owned()),
            ..json.properties
        },
        ..json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Details, Status};

    #[test]
    fn a_message_says_what_it_is_when_it_was_made_and_by_whom() {
        let event = OrderEvent {
            status: Status::Paid,
            order_id: "4711".to_owned(),
            user_id: None,
            product: None,
            details: Details::default(),
        };
        let properties = order_message(&event).properties;
        assert_eq!(properties.content_type.as_deref(), Some("application/json"));
        assert_eq!(properties.message_type.as_deref(), Some("OrderPaid"));
        assert_eq!(properties.app_id.as_deref(), Some("order-cli"));
        assert!(properties.timestamp.unwrap() > 1_700_000_000);
        let id = Uuid::parse_str(properties.message_id.as_deref().unwrap()).unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
}
