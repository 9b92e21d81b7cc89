//! The fixture of a test: one engine, an exchange and a queue of its own, and order-cli.

use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use broker::{Broker, BrokerUrl, ConnectOptions, Delivery, ExchangeKind, QueueNames, Source};
use serde_json::Value;
use tempfile::TempDir;
use testbed::rabbitmq;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

/// Maximum time for something that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);
const PREFETCH: u16 = 1000;

pub(crate) struct Bed {
    pub(crate) folder: TempDir,
    pub(crate) url: String,
    pub(crate) exchange: String,
}

impl Bed {
    pub(crate) fn rabbitmq() -> Self {
        Self::on(rabbitmq::shared())
    }

    pub(crate) fn on(node: &rabbitmq::Node) -> Self {
        Self::at(|_| node.url())
    }

    pub(crate) fn sqlite() -> Self {
        Self::at(|folder| format!("sqlite:{}", folder.path().join("queue.db").display()))
    }

    fn at(url: impl FnOnce(&TempDir) -> String) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir().unwrap();
        let exchange = format!("orders-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { url: url(&folder), folder, exchange }
    }

    /// Opens a session and declares the exchange and a queue that takes orders.
    pub(crate) async fn declare(&self) -> Broker {
        self.declare_for("order.*").await
    }

    /// Does the same with a queue that takes events of another routing key pattern.
    pub(crate) async fn declare_for(&self, pattern: &str) -> Broker {
        let url: BrokerUrl = self.url.parse().unwrap();
        let options = ConnectOptions { name: "test".to_owned(), timeout: SOON };
        let broker = Broker::connect(&url, &options).await.unwrap();
        let source = Source {
            exchange: self.exchange.clone(),
            kind: ExchangeKind::Topic,
            names: QueueNames::new(self.queue()),
            bindings: vec![pattern.to_owned()],
        };
        broker.declare_source(&source).await.unwrap();
        broker
    }

    pub(crate) fn queue(&self) -> String {
        format!("{}.queue", self.exchange)
    }

    /// Takes this many messages from the queue, and checks that there are no more.
    pub(crate) async fn take(&self, broker: &Broker, count: usize) -> Vec<Delivery> {
        let mut consumer = broker.consume(&self.queue(), PREFETCH).await.unwrap();
        let mut deliveries = Vec::new();
        while deliveries.len() < count {
            let delivery = tokio::time::timeout(SOON, consumer.next()).await.expect("a message comes soon");
            deliveries.push(delivery.expect("the consumer goes on").unwrap());
        }
        assert_eq!(broker.inspect(&self.queue()).await.unwrap().unwrap().ready, 0, "more than {count} arrived");
        deliveries
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = order_cli(arguments);
        command.env("NOTIFY_BROKER", &self.url).env("NOTIFY_EXCHANGE", &self.exchange);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.command(arguments).spawn().unwrap()).await
    }

    /// Runs order-cli with this text on standard input.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).await.unwrap();
        finish(child).await
    }
}

/// Returns the real binary, which is killed at the end of its test.
pub(crate) fn order_cli(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_order-cli"));
    command.args(arguments).env_remove("NOTIFY_BROKER").env_remove("NOTIFY_EXCHANGE").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The result of a process.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Returns the lines of standard output. The process must have succeeded.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<&str> {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""));
        self.stdout.lines().collect()
    }

    /// Returns the one sentence on standard error. The process must have failed with this code.
    #[track_caller]
    pub(crate) fn sentence(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        let sentence = self.stderr.strip_prefix("order-cli: ").expect("it says who speaks").trim_end();
        assert!(!sentence.contains('\n'), "{sentence}");
        sentence
    }
}

pub(crate) async fn finish(child: Child) -> Ran {
    let output = tokio::time::timeout(SOON, child.wait_with_output()).await.expect("order-cli ends soon").unwrap();
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

pub(crate) fn json(text: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(text.as_ref()).unwrap()
}

pub(crate) fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| String::from_utf8(delivery.message.body.to_vec()).unwrap()).collect()
}
