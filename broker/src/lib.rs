//! How messages travel: publish, consume, acknowledge, over one of two engines.
//!
//! - `amqp://…`, `amqps://…`: RabbitMQ, for work that outgrows one machine.
//! - `sqlite:PATH`: one file, for one machine with no broker.
//!
//! Both keep the same promises, and one suite of tests (`tests/contract.rs`) holds them to it:
//! a publish that returned is durable and reached a queue; a delivery that was not acknowledged
//! is offered again once its consumer is gone, however it went.
//!
//! A [`Broker`] is one session. It does not reconnect: when it is lost every call fails with
//! [`BrokerError::Lost`], and the owner opens a new one. That keeps a delivery of an old session
//! from being acknowledged on a new one. Nothing here knows events or plugins beyond their names.

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

/// How a session is opened.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// What the broker's own tools show for this session, e.g. `notify-host`.
    pub name: String,
    /// The whole of opening: name look-up, connection, TLS, login.
    pub timeout: Duration,
}

/// Where a message is published to.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// An exchange, which routes it to queues by its routing key.
    Exchange {
        /// Its name; it must exist.
        exchange: &'a str,
        /// Up to 255 bytes.
        routing_key: &'a str,
    },
    /// One queue, by its name.
    Queue(&'a str),
    /// A plugin's own queue, once the delay is over. The wait is durable, at least as long as
    /// wanted, and on RabbitMQ rounded up to a [`RetryTier`]; past the longest tier it is cut
    /// to that.
    PluginLater {
        /// The names of the source's queues.
        names: &'a QueueNames,
        /// The plugin's name.
        plugin: &'a str,
        /// How long to wait.
        delay: Duration,
    },
}

/// What a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Messages that a consumer could be given now.
    pub ready: u64,
    /// Messages that wait for their time, on an engine that keeps them in the queue itself.
    pub delayed: u64,
    /// Consumers, in all processes.
    pub consumers: u64,
}

impl Broker {
    /// Opens a session. Of the nodes of a cluster it takes one that can be used, in no particular
    /// order, so that many hosts spread over them.
    pub async fn connect(url: &BrokerUrl, options: &ConnectOptions) -> Result<Self, ConnectError> {
        match url {
            BrokerUrl::Amqp(nodes) => Ok(Self::Amqp(amqp::Session::connect(nodes, options).await?)),
            BrokerUrl::Sqlite(path) => Ok(Self::Sqlite(sqlite::Session::connect(path, options).await?)),
        }
    }

    /// Where this session is: of the nodes of a cluster, the one that it has taken.
    pub fn url(&self) -> &BrokerUrl {
        match self {
            Self::Amqp(session) => session.url(),
            Self::Sqlite(session) => session.url(),
        }
    }

    /// Makes the source's exchange and queue where they do not exist, and the dead-letter queue.
    /// What exists is used as it is; the warnings say what about it can lose messages.
    pub async fn declare_source(&self, source: &Source) -> Result<Vec<Warning>, BrokerError> {
        match self {
            Self::Amqp(session) => session.declare_source(source).await,
            Self::Sqlite(session) => session.declare_source(source).await,
        }
    }

    /// Makes the queues of these plugins, and the exchanges and tiers by which retries reach them. What
    /// exists is used as it is; the warnings name what differs from what would be made.
    pub async fn declare_plugins(&self, names: &QueueNames, plugins: &[&str]) -> Result<Vec<Warning>, BrokerError> {
        match self {
            Self::Amqp(session) => session.declare_plugins(names, plugins).await,
            Self::Sqlite(session) => session.declare_plugins(names, plugins).await,
        }
    }

    /// Looks at each of these parts, and changes nothing.
    pub async fn inspect_topology(&self, items: &[TopologyItem]) -> Result<Vec<Finding>, BrokerError> {
        match self {
            Self::Amqp(session) => session.inspect_topology(items).await,
            Self::Sqlite(session) => session.inspect_topology(items).await,
        }
    }

    /// How many bytes the headers of a message may have in this session. In RabbitMQ all properties travel in one frame;
    /// the file has no limit of its own.
    pub fn headers_bytes_max(&self) -> usize {
        match self {
            Self::Amqp(session) => session.headers_bytes_max(),
            Self::Sqlite(_) => usize::MAX,
        }
    }

    /// Publishes, and returns once the broker has the message safe in at least one queue.
    ///
    /// Calls may overlap, and should where speed matters: confirmations are batched. Messages go out
    /// in the order in which their calls began to be awaited.
    pub async fn publish(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        match self {
            Self::Amqp(session) => session.publish(target, message).await,
            Self::Sqlite(session) => session.publish(target, message).await,
        }
    }

    /// The same for a copy of a message that came from this broker, and that is acknowledged only once this has returned.
    ///
    /// A file need not wait for the disk then: after a power cut it has the copy, or the message as it was, which it keeps
    /// until the acknowledgement is on the disk, and the copy with it.
    pub async fn forward(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        match self {
            Self::Amqp(session) => session.publish(target, message).await,
            Self::Sqlite(session) => session.forward(target, message).await,
        }
    }

    /// Starts to consume a queue, with at most `prefetch` deliveries unacknowledged.
    pub async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        match self {
            Self::Amqp(session) => session.consume(queue, prefetch).await,
            Self::Sqlite(session) => session.consume(queue, prefetch).await,
        }
    }

    /// What a queue holds; `None` when there is no such queue.
    pub async fn inspect(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        match self {
            Self::Amqp(session) => session.inspect(queue).await,
            Self::Sqlite(session) => session.inspect(queue).await,
        }
    }

    /// Removes every message that is not with a consumer, and says how many those were.
    pub async fn purge(&self, queue: &str) -> Result<u64, BrokerError> {
        match self {
            Self::Amqp(session) => session.purge(queue).await,
            Self::Sqlite(session) => session.purge(queue).await,
        }
    }

    /// Why the session was lost, if a message can be the cause: the broker found what it was sent unreadable, or sent
    /// something unreadable itself, or a task of this session panicked. `None` while the session is there, and when the
    /// network, the broker's own end or the disk is the cause.
    pub fn broken_by_message(&self) -> Option<String> {
        match self {
            Self::Amqp(session) => session.broken_by_message(),
            Self::Sqlite(session) => session.broken_by_message(),
        }
    }

    /// Ends the session in good order. Consumers are closed before; see [`Consumer::close`].
    pub async fn close(self) {
        match self {
            Self::Amqp(session) => session.close().await,
            Self::Sqlite(session) => session.close().await,
        }
    }
}
