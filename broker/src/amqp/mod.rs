//! TODO engine
use crate::{
    BrokerError, ConnectError, ConnectOptions, Consumer, Message, PublishError, QueueNames, QueueState, Source, Target,
    Warning,
};

/// One session.
#[derive(Clone, Debug)]
pub struct Session;

#[expect(unused_variables, clippy::unused_async, clippy::todo, reason = "not written yet")]
impl Session {
    pub(crate) async fn connect(url: &url::Url, options: &ConnectOptions) -> Result<Self, ConnectError> {
        todo!()
    }
    pub(crate) async fn declare_source(&self, source: &Source) -> Result<Vec<Warning>, BrokerError> {
        todo!()
    }
    pub(crate) async fn declare_plugin(&self, names: &QueueNames, plugin: &str) -> Result<(), BrokerError> {
        todo!()
    }
    pub(crate) async fn publish(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        todo!()
    }
    pub(crate) async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        todo!()
    }
    pub(crate) async fn inspect(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        todo!()
    }
    pub(crate) async fn purge(&self, queue: &str) -> Result<u64, BrokerError> {
        todo!()
    }
    pub(crate) async fn close(self) {
        todo!()
    }
}
