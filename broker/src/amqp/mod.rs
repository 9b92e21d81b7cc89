//! RabbitMQ as a broker, through lapin.
//!
//! A session has two connections to one node, which are lost together. One publishes, the other does
//! everything else. RabbitMQ stops reading from a publishing connection while it is short of memory or
//! disk (<https://www.rabbitmq.com/docs/alarms>), and so would read no acknowledgements either.
//!
//! Publishing has its own channel, with confirms, and so does each consumer. A request that may be refused, and
//! would close its channel, runs on a channel opened for it. Nothing here reconnects, see [`crate::Broker`].

mod acks;
mod connect;
mod connection;
mod consume;
mod convert;
mod declare;
mod declarer;
mod diagnosis;
mod differences;
mod guard;
mod inspect;
mod publish;
mod watch;

#[doc(hidden)]
use std::sync::Arc;
use std::time::Instant;

use lapin::options::QueuePurgeOptions;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::amqp::connection::{AmqpConnection, refused_name};
use crate::amqp::declarer::Declarer;
pub use crate::amqp::guard::GuardBench;
use crate::amqp::publish::Publisher;
use crate::{
    BrokerError, BrokerUrl, ConnectError, ConnectOptions, Consumer, Finding, Message, PublishError, QueueNames,
    QueueState, Source, Target, TopologyItem, Warning,
};

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
    /// URL of the node in use.
    url: Arc<BrokerUrl>,
    publishing: Arc<AmqpConnection>,
    /// Consumes, declares and inspects.
    connection: Arc<AmqpConnection>,
    publisher: Arc<Publisher>,
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl Session {
    pub(crate) async fn connect(nodes: &[Url], options: &ConnectOptions) -> Result<Self, ConnectError> {
        // Divide the time limit, so that a silent node leaves time for the others.
        let timeout = options.timeout / u32::try_from(nodes.len().max(1)).unwrap_or(u32::MAX);
        let options = ConnectOptions { timeout, ..options.clone() };
        let mut errors: Vec<Option<ConnectError>> = nodes.iter().map(|_| None).collect();
        let mut order: Vec<_> = (0..nodes.len()).collect();
        fastrand::shuffle(&mut order);
        for at in order {
            match Self::open(&nodes[at], &options).await {
                Ok(session) => return Ok(session),
                Err(error) => errors[at] = Some(error),
            }
        }
        // In the order of the URLs, so that the same trouble always gives the same message.
        let mut errors: Vec<_> = errors.into_iter().flatten().collect();
        Err(if errors.len() == 1 { errors.remove(0) } else { ConnectError::NoNode(errors) })
    }

    async fn open(url: &Url, options: &ConnectOptions) -> Result<Self, ConnectError> {
        let started = Instant::now();
        let open = async |what: &str| {
            let timeout = options.timeout.saturating_sub(started.elapsed());
            let options = ConnectOptions { name: format!("{} ({what})", options.name), timeout };
            Ok::<_, ConnectError>(Arc::new(AmqpConnection::new(connect::open(url, &options).await?)))
        };
        // One after the other, so that a problem is found only once.
        let publishing = open("publishing").await?;
        let connection = open("consuming").await?;
        let publisher = Arc::new(Publisher::start(Arc::clone(&publishing)));
        let watch = tokio::spawn(watch::watch(Arc::clone(&publishing), Arc::clone(&connection)));
        let url = Arc::new(BrokerUrl::Amqp(vec![url.clone()]));
        Ok(Self { url, publishing, connection, publisher, _watch: Arc::new(AbortOnDropHandle::new(watch)) })
    }

    pub(crate) fn url(&self) -> &BrokerUrl {
        &self.url
    }

    pub(crate) fn headers_bytes_max(&self) -> usize {
        self.publisher.headers_bytes_max()
    }

    pub(crate) async fn declare_source(&self, source: &Source) -> Result<Vec<Warning>, BrokerError> {
        declare::source(&self.connection, source).await
    }

    pub(crate) async fn declare_plugins(
        &self,
        names: &QueueNames,
        plugins: &[&str],
    ) -> Result<Vec<Warning>, BrokerError> {
        declare::plugins(&self.connection, names, plugins).await
    }

    pub(crate) async fn inspect_topology(&self, items: &[TopologyItem]) -> Result<Vec<Finding>, BrokerError> {
        inspect::inspect_topology(&self.connection, items).await
    }

    pub(crate) async fn publish(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        self.publisher.publish(target, message).await
    }

    pub(crate) async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        consume::start(&self.connection, queue, prefetch).await
    }

    pub(crate) async fn inspect(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        let found = Declarer::new(&self.connection).find_queue(queue).await?;
        Ok(found.map(|queue| state_of(&queue)))
    }

    pub(crate) async fn purge(&self, queue: &str) -> Result<u64, BrokerError> {
        let name = refused_name("queue name", queue)?;
        let channel = self.connection.channel().await?;
        let purged = channel.queue_purge(name, QueuePurgeOptions::default()).await;
        purged.map(u64::from).map_err(|error| self.connection.explain(&error))
    }

    pub(crate) fn broken_by_message(&self) -> Option<String> {
        self.connection.broken_by_message().or_else(|| self.publishing.broken_by_message())
    }

    pub(crate) async fn close(self) {
        tokio::join!(self.connection.close(), self.publishing.close());
    }
}

/// Converts the counts of a queue. Delayed messages are in the tier queues, not in the plugin's queue.
fn state_of(queue: &lapin::Queue) -> QueueState {
    QueueState { ready: queue.message_count().into(), delayed: 0, consumers: queue.consumer_count().into() }
}
