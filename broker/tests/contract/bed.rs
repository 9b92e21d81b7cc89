//! The fixture of a contract test: one engine, and names that no other test uses.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use broker::{
    Broker, BrokerUrl, ConnectOptions, Consumer, Delivery, ExchangeKind, Message, QueueNames, QueueState, Source,
    Target,
};
use tempfile::TempDir;
use testbed::rabbitmq::{self, Node, let_new_queues_settle};

/// Time limit for anything that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// How long a test watches that nothing happens.
const QUIET: Duration = Duration::from_millis(300);

pub(crate) struct Bed {
    engine: Engine,
    /// Exchange of the source, and prefix of all names.
    pub(crate) name: String,
}

enum Engine {
    Shared(&'static Node),
    Own(Box<Node>),
    File(TempDir),
}

impl Bed {
    pub(crate) fn rabbitmq() -> Self {
        Self::on(Engine::Shared(rabbitmq::shared()))
    }

    pub(crate) fn rabbitmq_4() -> Self {
        Self::on(Engine::Shared(rabbitmq::shared_four()))
    }

    pub(crate) fn sqlite() -> Self {
        Self::on(Engine::File(tempfile::tempdir().unwrap()))
    }

    fn on(engine: Engine) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("events-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { engine, name }
    }

    /// Returns the same engine, as one that this test may restart.
    pub(crate) fn alone(self) -> Self {
        let engine = match self.engine {
            Engine::Shared(node) => Engine::Own(Box::new(Node::start_release(node.release()))),
            other @ (Engine::Own(_) | Engine::File(_)) => other,
        };
        Self { engine, name: self.name }
    }

    /// Restarts the engine. A file needs no restart: it is enough that every session is gone.
    pub(crate) async fn restart(&self) {
        match &self.engine {
            Engine::Shared(_) => panic!("the node belongs to all tests"),
            Engine::Own(node) => {
                tokio::task::spawn_blocking(let_new_queues_settle).await.unwrap();
                node.kill();
                node.start_again();
            }
            Engine::File(_) => {}
        }
    }

    pub(crate) async fn connect(&self) -> Broker {
        let url = match &self.engine {
            Engine::Shared(node) => node.url(),
            Engine::Own(node) => node.url(),
            Engine::File(folder) => format!("sqlite:{}", folder.path().join("queue.db").display()),
        };
        let url: BrokerUrl = url.parse().unwrap();
        let options = ConnectOptions { name: "contract".to_owned(), timeout: SOON };
        Broker::connect(&url, &options).await.unwrap()
    }

    pub(crate) fn source(&self, kind: ExchangeKind, bindings: &[&str]) -> Source {
        Source {
            exchange: self.name.clone(),
            kind,
            names: QueueNames::new(self.queue()),
            bindings: bindings.iter().map(|&key| key.to_owned()).collect(),
        }
    }

    pub(crate) fn queue(&self) -> String {
        format!("{}.queue", self.name)
    }

    /// Opens a session, with a source whose queue takes everything.
    pub(crate) async fn open(&self) -> Broker {
        let broker = self.connect().await;
        broker.declare_source(&self.source(ExchangeKind::Topic, &["#"])).await.unwrap();
        broker
    }

    pub(crate) async fn publish(&self, broker: &Broker, body: impl Into<String>) {
        let target = Target::Exchange { exchange: &self.name, routing_key: "order.created" };
        broker.publish(target, &text(body)).await.unwrap();
    }

    pub(crate) async fn consume(&self, broker: &Broker, prefetch: u16) -> Consumer {
        broker.consume(&self.queue(), prefetch).await.unwrap()
    }

    pub(crate) async fn state(&self, broker: &Broker) -> QueueState {
        broker.inspect(&self.queue()).await.unwrap().expect("the queue exists")
    }
}

pub(crate) fn text(body: impl Into<String>) -> Message {
    Message::json(body.into())
}

pub(crate) fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.body.to_vec()).unwrap()
}

/// Returns the next delivery, which must come.
pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = tokio::time::timeout(SOON, consumer.next()).await.expect("a delivery comes soon");
    delivery.expect("the consumer goes on").unwrap()
}

/// Returns this many deliveries, none of them acknowledged.
pub(crate) async fn take(consumer: &mut Consumer, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::with_capacity(count);
    while deliveries.len() < count {
        deliveries.push(next(consumer).await);
    }
    deliveries
}

pub(crate) fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(body).collect()
}

/// Checks for a moment that no delivery comes.
pub(crate) async fn stays_quiet(consumer: &mut Consumer) {
    if let Ok(delivery) = tokio::time::timeout(QUIET, consumer.next()).await {
        panic!("a delivery came that should not: {delivery:?}");
    }
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"));
}
