//! Publishes, consumes and acknowledges messages, over one of two engines.
//!
//! - `amqp://…` and `amqps://…`: RabbitMQ, for work that outgrows one machine.
//! - `sqlite:PATH`: one file, for a single machine without a broker.
//!
//! Both engines keep the same promises, and one test suite (`tests/contract.rs`) runs against both.
//! A publish that has returned is durable and has reached a queue. A delivery that was not
//! acknowledged is offered again once its consumer is gone, for whatever reason.
//!
//! A [`Broker`] is one session. It does not reconnect: once the session is lost, every call fails
//! with [`BrokerError::Lost`], and the owner opens a new one. A delivery of an old session can
//! therefore never be acknowledged on a new one. This crate knows nothing about events, and plugins
//! only by name.

mod amqp;
mod consumer;
mod error;
mod message;
mod sqlite;
mod topic;
mod topology;
mod topology_item;
mod turnstile;
mod url;

use std::time::Duration;

#[doc(hidden)]
pub use crate::amqp::GuardBench;
pub use crate::consumer::{Consumer, Delivery, Receipt, Unreadable};
pub use crate::error::{BrokerError, ConnectError, PublishError, UrlError};
pub use crate::message::{Headers, Message, Properties, Value};
pub use crate::topic::matches as topic_matches;
pub use crate::topology::{ExchangeKind, QueueNames, RETRY_TIERS, RetryTier, Source, Warning};
pub use crate::topology_item::{Finding, GivesUp, Object, Presence, Role, TopologyItem};
pub use crate::url::BrokerUrl;

/// One session with a broker. Cheap to clone; clones share the session.
#[derive(Clone, Debug)]
pub enum Broker {
    /// RabbitMQ.
    Amqp(amqp::Session),
    /// One file.
    Sqlite(sqlite::Session),
}

/// Options for opening a session.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Name that the broker's own tools show for this session, e.g. `notify-host`.
    pub name: String,
    /// Time limit for opening as a whole: name lookup, connection, TLS and login.
    pub timeout: Duration,
}

/// Destination of a publish.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// An exchange, which routes the message to queues by its routing key.
    Exchange {
        /// Name of the exchange, which must exist.
        exchange: &'a str,
        /// Routing key, at most 255 bytes.
        routing_key: &'a str,
    },
    /// One queue, by name.
    Queue(&'a str),
    /// A plugin's own queue, after a delay. The wait is durable and at least as long as requested.
    /// RabbitMQ rounds it up to a [`RetryTier`], and cuts anything longer to the longest tier.
    PluginLater {
        /// The names of the source's queues.
        names: &'a QueueNames,
        /// The plugin's name.
        plugin: &'a str,
        /// How long to wait.
        delay: Duration,
    },
}

/// Message and consumer counts of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Messages that can be delivered now.
    pub ready: u64,
    /// Messages that are not due yet, on an engine that keeps them in the queue itself.
    pub delayed: u64,
    /// Consumers, in all processes.
    pub consumers: u64,
}

impl Broker {
    /// Opens a session. For a cluster, tries the nodes in random order and takes the first that
    /// works, so that many hosts spread over the nodes.
    pub async fn connect(url: &BrokerUrl, options: &ConnectOptions) -> Result<Self, ConnectError> {
        match url {
            BrokerUrl::Amqp(nodes) => Ok(Self::Amqp(amqp::Session::connect(nodes, options).await?)),
            BrokerUrl::Sqlite(path) => Ok(Self::Sqlite(sqlite::Session::connect(path, options).await?)),
        }
    }

    /// Returns the URL of this session. For a cluster, it is the URL of the node in use.
    pub fn url(&self) -> &BrokerUrl {
        match self {
            Self::Amqp(session) => session.url(),
            Self::Sqlite(session) => session.url(),
        }
    }

    /// Declares the source's exchange and queue, and the dead-letter queue, where they do not exist.
    /// Existing ones are used unchanged; the warnings describe anything about them that can lose messages.
    pub async fn declare_source(&self, source: &Source) -> Result<Vec<Warning>, BrokerError> {
        match self {
            Self::Amqp(session) => session.declare_source(source).await,
            Self::Sqlite(session) => session.declare_source(source).await,
        }
    }

    /// Declares the queues of these plugins, and the exchanges and tiers that bring retries back to them.
    /// Existing ones are used unchanged; the warnings name each one that differs from its intended declaration.
    pub async fn declare_plugins(&self, names: &QueueNames, plugins: &[&str]) -> Result<Vec<Warning>, BrokerError> {
        match self {
            Self::Amqp(session) => session.declare_plugins(names, plugins).await,
            Self::Sqlite(session) => session.declare_plugins(names, plugins).await,
        }
    }

    /// Inspects each of these items, and changes nothing.
    pub async fn inspect_topology(&self, items: &[TopologyItem]) -> Result<Vec<Finding>, BrokerError> {
        match self {
            Self::Amqp(session) => session.inspect_topology(items).await,
            Self::Sqlite(session) => session.inspect_topology(items).await,
        }
    }

    /// Returns the maximum size of a message's headers in this session, in bytes. RabbitMQ carries
    /// all properties in one frame; the file has no limit of its own.
    pub fn headers_bytes_max(&self) -> usize {
        match self {
            Self::Amqp(session) => session.headers_bytes_max(),
            Self::Sqlite(_) => usize::MAX,
        }
    }

    /// Publishes a message, and returns once the broker has stored it in at least one queue.
    ///
    /// Calls may overlap, and should where speed matters: confirmations are batched. Messages go
    /// out in the order in which their calls were first polled.
    pub async fn publish(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        match self {
            Self::Amqp(session) => session.publish(target, message).await,
            Self::Sqlite(session) => session.publish(target, message).await,
        }
    }

    /// Publishes a copy of a message from this broker. The caller must acknowledge the original
    /// only after this returns.
    ///
    /// SQLite can then skip the wait for the disk. After a power cut the file has either the copy
    /// or the original message: it keeps the original until the acknowledgement is on disk, and the
    /// copy reaches the disk with it.
    pub async fn forward(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        match self {
            Self::Amqp(session) => session.publish(target, message).await,
            Self::Sqlite(session) => session.forward(target, message).await,
        }
    }

    /// Starts to consume a queue, with at most `prefetch` unacknowledged deliveries.
    pub async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        match self {
            Self::Amqp(session) => session.consume(queue, prefetch).await,
            Self::Sqlite(session) => session.consume(queue, prefetch).await,
        }
    }

    /// Returns the counts of a queue, or `None` if it does not exist.
    pub async fn inspect(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        match self {
            Self::Amqp(session) => session.inspect(queue).await,
            Self::Sqlite(session) => session.inspect(queue).await,
        }
    }

    /// Removes every message that no consumer holds, and returns their number.
    pub async fn purge(&self, queue: &str) -> Result<u64, BrokerError> {
        match self {
            Self::Amqp(session) => session.purge(queue).await,
            Self::Sqlite(session) => session.purge(queue).await,
        }
    }

    /// Returns why the session was lost, if a message may be the cause: the broker could not
    /// read what it was sent, or sent something unreadable itself, or a task of this session
    /// panicked. `None` while the session is up, and when the cause is the network, the broker's
    /// own shutdown or the disk.
    pub fn broken_by_message(&self) -> Option<String> {
        match self {
            Self::Amqp(session) => session.broken_by_message(),
            Self::Sqlite(session) => session.broken_by_message(),
        }
    }

    /// Closes the session in good order. Close its consumers first; see [`Consumer::close`].
    pub async fn close(self) {
        match self {
            Self::Amqp(session) => session.close().await,
            Self::Sqlite(session) => session.close().await,
        }
    }
}
