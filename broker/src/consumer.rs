//! A consumer hands out deliveries; each is acknowledged through its receipt.
//!
//! The engine feeds the consumer through a channel that holds at most the prefetch window, and
//! gathers the acknowledgements from another, so that it can settle many at once. A receipt
//! that is dropped leaves its message unacknowledged: the broker offers it again when the
//! consumer closes or dies. Nothing here can acknowledge by accident.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::{BrokerError, Message};

/// One message on its way to a consumer.
#[derive(Debug)]
pub struct Delivery {
    /// The message, as it was published.
    pub message: Message,
    /// The exchange it was published to; empty for a queue's own name.
    pub exchange: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// It was offered before, and not acknowledged.
    pub redelivered: bool,
    /// Present if not all of its properties could be read; `message` has those that could.
    pub unreadable: Option<Box<Unreadable>>,
    /// What acknowledges it.
    pub receipt: Receipt,
}

/// The properties of a message that cannot be read in full.
///
/// AMQP lets a publisher send headers that no program can take in, such as lists nested 10,000 deep; a row of a file can
/// be damaged. The message can be acknowledged and passed on like any other, without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The part that cannot be read, as a sentence that begins with "its".
    pub problem: String,
    /// The bytes as they came: from RabbitMQ the flags and properties in the form of AMQP 0-9-1's content header, from a file
    /// what stood in its column.
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

    /// The message is done with. Returns at once; the engine settles in batches. If the session
    /// is lost first, the message is offered again.
    pub fn ack(self) {
        // An error means the consumer is gone, and the message with it back in its queue.
        let _ = self.acks.send(self.tag);
    }
}

/// A stream of deliveries from one queue.
pub struct Consumer {
    deliveries: mpsc::Receiver<Result<Delivery, BrokerError>>,
    close: Option<BoxFuture<'static, Result<(), BrokerError>>>,
}

impl Consumer {
    /// `close` stops the intake, settles what was acknowledged and gives the rest back.
    pub(crate) fn new(
        deliveries: mpsc::Receiver<Result<Delivery, BrokerError>>,
        close: BoxFuture<'static, Result<(), BrokerError>>,
    ) -> Self {
        Self { deliveries, close: Some(close) }
    }

    /// The next delivery. An error is the last item: the session, or this consumer, is lost.
    /// `None` after that. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Delivery, BrokerError>> {
        self.deliveries.recv().await
    }

    /// Stops the intake, sends off every acknowledgement given so far, waits until the broker has
    /// them, and gives back what was not acknowledged.
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
