//! Commands from a session to its thread.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{BrokerError, Delivery, Finding, PublishError, QueueState, TopologyItem};

/// A command from a session. Replies are sent after the commit.
pub(super) enum Command {
    Declare {
        items: Vec<TopologyItem>,
        reply: oneshot::Sender<()>,
    },
    InspectTopology {
        items: Vec<TopologyItem>,
        reply: oneshot::Sender<Vec<Finding>>,
    },
    Publish {
        publication: Publication,
        /// Whether the commit waits for the disk.
        flushed: bool,
        reply: oneshot::Sender<Result<(), PublishError>>,
    },
    Consume {
        queue: String,
        prefetch: u16,
        deliveries: Deliveries,
        reply: oneshot::Sender<Result<Ticket, BrokerError>>,
    },
    CloseConsumer {
        id: i64,
        reply: oneshot::Sender<()>,
    },
    Inspect {
        queue: String,
        reply: oneshot::Sender<Option<QueueState>>,
    },
    Purge {
        queue: String,
        reply: oneshot::Sender<Result<u64, BrokerError>>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

pub(super) type Deliveries = mpsc::Sender<Result<Delivery, BrokerError>>;

/// A message on its way into the file.
pub(super) struct Publication {
    pub(super) target: PublicationTarget,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) due_at: Option<i64>,
    pub(super) properties: String,
    pub(super) body: Bytes,
}

pub(super) enum PublicationTarget {
    /// Routed by exchange and routing key.
    Exchange,
    Queue(String),
}

/// The registration of one consumer. Dropping it gives back the consumer's messages.
pub(super) struct Ticket {
    pub(super) id: i64,
    pub(super) dropped: mpsc::UnboundedSender<i64>,
}

impl Ticket {
    pub(super) fn id(&self) -> i64 {
        self.id
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // An error means that the thread has ended, and has given everything back.
        let _ = self.dropped.send(self.id);
    }
}
