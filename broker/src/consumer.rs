//! A consumer yields deliveries; each one is acknowledged through its receipt.
//!
//! The engine feeds the consumer through a channel that holds at most the prefetch window. It
//! collects acknowledgements from a second channel, so that it can send many at once. Dropping a
//! receipt leaves its message unacknowledged: the broker offers it again when the consumer closes
//! or dies. Nothing here can acknowledge by accident.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::{BrokerError, Message};

/// One message handed to a consumer.
#[derive(Debug)]
pub struct Delivery {
    /// The message as it was published.
    pub message: Message,
    /// Exchange that the message was published to; empty if it was published to a queue by name.
    pub exchange: String,
    /// Routing key that the message was published with.
    pub routing_key: String,
    /// Whether the message was delivered before without being acknowledged.
    pub redelivered: bool,
    /// Set if some properties could not be read; `message` has the readable ones.
    pub unreadable: Option<Box<Unreadable>>,
    /// Acknowledges this delivery.
    pub receipt: Receipt,
}

/// The properties of a message that cannot be read in full.
///
/// AMQP lets a publisher send headers that no program can take in, such as lists nested 10,000
/// deep, and a row of a file can be damaged. The message can still be acknowledged and passed on
/// like any other, without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Names the unreadable part, as a sentence that begins with "its".
    pub problem: String,
    /// The raw bytes. From RabbitMQ: the flags and properties of the AMQP 0-9-1 content header.
    /// From a file: the contents of the column.
    pub properties: Bytes,
}

/// The right to acknowledge one delivery, once.
#[derive(Debug)]
#[must_use = "a delivery that is not acknowledged comes again"]
pub struct Receipt {
    tag: u64,
    acks: mpsc::UnboundedSender<u64>,
}

impl Receipt {
    pub(crate) fn new(tag: u64, acks: mpsc::UnboundedSender<u64>) -> Self {
        Self { tag, acks }
    }

    /// Acknowledges the message. Returns at once; the engine sends acknowledgements in batches. If
    /// the session is lost first, the message is offered again.
    pub fn ack(self) {
        // An error means that the consumer is gone and the message is back in its queue.
        let _ = self.acks.send(self.tag);
    }
}

/// A stream of deliveries from one queue.
pub struct Consumer {
    deliveries: mpsc::Receiver<Result<Delivery, BrokerError>>,
    close: Option<BoxFuture<'static, Result<(), BrokerError>>>,
}

impl Consumer {
    /// Creates a consumer. `close` stops the deliveries, sends the acknowledgements given so far and
    /// returns the other messages to the queue.
    pub(crate) fn new(
        deliveries: mpsc::Receiver<Result<Delivery, BrokerError>>,
        close: BoxFuture<'static, Result<(), BrokerError>>,
    ) -> Self {
        Self { deliveries, close: Some(close) }
    }

    /// Returns the next delivery. An error is the last item, and means that the session or this
    /// consumer is lost. `None` after that. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Delivery, BrokerError>> {
        self.deliveries.recv().await
    }

    /// Stops the deliveries, sends every acknowledgement given so far, waits until the broker has
    /// them, and returns the unacknowledged messages to the queue.
    pub async fn close(mut self) -> Result<(), BrokerError> {
        match self.close.take() {
            Some(close) => close.await,
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}
