//! RabbitMQ as a broker, through lapin.
//!
//! A session is one connection. Publishing has a channel of its own, with confirmations; so has
//! each consumer; what may be refused, and so close its channel, is asked on a channel made for it.
//! Nothing here reconnects, see [`crate::Broker`].

mod acks;
mod connect;
mod consume;
mod convert;
mod declare;
mod link;
mod publish;

use std::sync::Arc;

use lapin::options::QueuePurgeOptions;

use crate::amqp::link::{Link, refused_name};
use crate::amqp::publish::Publisher;
use crate::{
    BrokerError, ConnectError, ConnectOptions, Consumer, Message, PublishError, QueueNames, QueueState, Source, Target,
    Warning,
};

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
    link: Arc<Link>,
    publisher: Arc<Publisher>,
}

impl Session {
    pub(crate) async fn connect(url: &url::Url, options: &ConnectOptions) -> Result<Self, ConnectError> {
        let link = Arc::new(Link::new(connect::open(url, options).await?));
        let publisher = Arc::new(Publisher::start(Arc::clone(&link)));
        Ok(Self { link, publisher })
    }

    pub(crate) async fn declare_source(&self, source: &Source) -> Result<Vec<Warning>, BrokerError> {
        declare::source(&self.link, source).await
    }

    pub(crate) async fn declare_plugin(&self, names: &QueueNames, plugin: &str) -> Result<(), BrokerError> {
        declare::plugin(&self.link, names, plugin).await
    }

    pub(crate) async fn publish(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        self.publisher.publish(target, message).await
    }

    pub(crate) async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        consume::start(&self.link, queue, prefetch).await
    }

    pub(crate) async fn inspect(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        let found = declare::find_queue(&self.link, queue).await?;
        // What waits for its time is in the queues of the tiers, not in this one.
        Ok(found.map(|queue| QueueState {
            ready: queue.message_count().into(),
            delayed: 0,
            consumers: queue.consumer_count().into(),
        }))
    }

    pub(crate) async fn purge(&self, queue: &str) -> Result<u64, BrokerError> {
        let name = refused_name("queue name", queue)?;
        let channel = self.link.channel().await?;
        let purged = channel.queue_purge(name, QueuePurgeOptions::default()).await;
        purged.map(u64::from).map_err(|error| self.link.explain(&error))
    }

    pub(crate) async fn close(self) {
        self.link.close().await;
    }
}
