//! One SQLite file as a broker, for the processes of one machine.
//!
//! Each session has one thread, which owns the connection and does all the work. Requests that
//! arrive while a transaction is written go into the next one together, so a burst of publishes
//! costs a few disk flushes rather than one each. A [`wakeup`] notifies consumers in other
//! processes, and a [`liveness_lock`] identifies the messages of a process that died.
//!
//! A publish is flushed to disk before it is confirmed. Claims and acknowledgements are not
//! flushed: a power cut may repeat a delivery, but never loses one. A copy that is made before its
//! message is acknowledged is not flushed either. The write-ahead log loses entries only from its
//! end, so the acknowledgement never outlives the copy (<https://www.sqlite.org/wal.html>).

mod command;
mod liveness_lock;
mod row;
mod schema;
mod store;
mod transaction;
mod wakeup;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use crate::sqlite::command::{Command, Publication, PublicationTarget};
use crate::turnstile::Turnstile;
use crate::{
    BrokerError, BrokerUrl, ConnectError, ConnectOptions, Consumer, Finding, Message, PublishError, QueueNames,
    QueueState, Role, Source, Target, TopologyItem, Warning,
};

/// Maximum number of commands waiting for the thread; further callers wait to hand theirs over.
const COMMANDS_WAITING_MAX: usize = 1024;
/// Maximum bytes of a body: RabbitMQ's own default limit before 4.0.
const BODY_BYTES_MAX: usize = 128 << 20;
/// Maximum bytes of a routing key: AMQP's limit, so that the messages of a file can move to RabbitMQ.
const SHORT_STRING_BYTES_MAX: usize = 255;

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
    url: Arc<BrokerUrl>,
    commands: mpsc::Sender<Command>,
    turnstile: Arc<Turnstile>,
    /// The reason the session was lost, once it is.
    lost: Arc<OnceLock<String>>,
    /// Whether the session's thread panicked.
    panicked: Arc<AtomicBool>,
}

impl Session {
    pub(crate) async fn connect(path: &Path, options: &ConnectOptions) -> Result<Self, ConnectError> {
        let broker = format!("sqlite:{}", path.display());
        let failed = |problem| ConnectError::Failed { broker: broker.clone(), problem };
        let (commands, receiver) = mpsc::channel(COMMANDS_WAITING_MAX);
        let lost = Arc::new(OnceLock::new());
        let (opened, when_opened) = oneshot::channel();
        let url = Arc::new(BrokerUrl::Sqlite(path.to_owned()));
        let (path, reason) = (path.to_owned(), Arc::clone(&lost));
        let panicked = Arc::new(AtomicBool::new(false));
        let noticed = Panicked(Arc::clone(&panicked));
        std::thread::Builder::new()
            .name("sqlite-broker".to_owned())
            .spawn(move || {
                let _noticed = noticed;
                writer::run(&path, receiver, reason, opened);
            })
            .map_err(|error| failed(format!("cannot start its thread: {error}")))?;
        match tokio::time::timeout(options.timeout, when_opened).await {
            Ok(Ok(Ok(()))) => Ok(Self { url, commands, turnstile: Arc::default(), lost, panicked }),
            Ok(Ok(Err(problem))) => Err(failed(problem)),
            Ok(Err(_)) => Err(failed("its thread ended".to_owned())),
            Err(_) => Err(ConnectError::TimedOut { broker, seconds: options.timeout.as_secs() }),
        }
    }

    pub(crate) fn url(&self) -> &BrokerUrl {
        &self.url
    }

    pub(crate) async fn declare_source(&self, source: &Source) -> Result<Vec<Warning>, BrokerError> {
        self.declare(source.items()).await.map(|()| Vec::new())
    }

    pub(crate) async fn declare_plugins(
        &self,
        names: &QueueNames,
        plugins: &[&str],
    ) -> Result<Vec<Warning>, BrokerError> {
        self.declare(names.plugins_items(plugins)).await.map(|()| Vec::new())
    }

    async fn declare(&self, mut items: Vec<TopologyItem>) -> Result<(), BrokerError> {
        items.retain(is_needed);
        self.ask(|reply| Command::Declare { items, reply }).await
    }

    pub(crate) async fn inspect_topology(&self, items: &[TopologyItem]) -> Result<Vec<Finding>, BrokerError> {
        let items = items.iter().filter(|item| is_needed(item)).cloned().collect();
        self.ask(|reply| Command::InspectTopology { items, reply }).await
    }

    pub(crate) async fn publish(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        let publication = publication(target, message)?;
        self.ask(|reply| Command::Publish { publication, flushed: true, reply }).await?
    }

    pub(crate) async fn forward(&self, target: Target<'_>, message: &Message) -> Result<(), PublishError> {
        let publication = publication(target, message)?;
        self.ask(|reply| Command::Publish { publication, flushed: false, reply }).await?
    }

    pub(crate) async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
        // Keeps the session, and so its thread, alive as long as the consumer.
        let session = self.clone();
        // One extra slot for the error that ends the stream.
        let (deliveries, receiver) = mpsc::channel(usize::from(prefetch) + 1);
        let queue = queue.to_owned();
        let ticket = self.ask(|reply| Command::Consume { queue, prefetch, deliveries, reply }).await??;
        let close = async move {
            let id = ticket.id();
            let closed = session.ask(|reply| Command::CloseConsumer { id, reply }).await;
            drop(ticket);
            closed
        };
        Ok(Consumer::new(receiver, Box::pin(close)))
    }

    pub(crate) async fn inspect(&self, queue: &str) -> Result<Option<QueueState>, BrokerError> {
        let queue = queue.to_owned();
        self.ask(|reply| Command::Inspect { queue, reply }).await
    }

    pub(crate) async fn purge(&self, queue: &str) -> Result<u64, BrokerError> {
        let queue = queue.to_owned();
        self.ask(|reply| Command::Purge { queue, reply }).await?
    }

    pub(crate) fn broken_by_message(&self) -> Option<String> {
        self.panicked.load(Ordering::Acquire).then(|| "the thread of the SQLite broker panicked".to_owned())
    }

    pub(crate) async fn close(self) {
        // A session that is lost is closed already.
        let _ = self.ask(|reply| Command::Close { reply }).await;
    }

    /// Hands the thread a command and waits for its reply. When the thread ends, it drops
    /// commands that it could not carry out; the caller then gets the reason for its end.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, BrokerError> {
        let (reply, answer) = oneshot::channel();
        let lost = || {
            let reason = self.lost.get().cloned();
            BrokerError::Lost(reason.unwrap_or_else(|| "the session was closed".to_owned()))
        };
        self.turnstile.pass(self.commands.send(command(reply))).await.map_err(|_| lost())?;
        answer.await.map_err(|_| lost())
    }
}

/// Records on drop whether the thread is panicking.
struct Panicked(Arc<AtomicBool>);

impl Drop for Panicked {
    fn drop(&mut self) {
        self.0.store(std::thread::panicking(), Ordering::Release);
    }
}

/// Returns whether a file needs this item. Delayed messages carry the time at which they are due,
/// so there are no retry tiers.
fn is_needed(item: &TopologyItem) -> bool {
    !matches!(item.role, Role::Retry(_))
}

fn publication(target: Target<'_>, message: &Message) -> Result<Publication, PublishError> {
    let (target, exchange, routing_key, delay) = match target {
        Target::Exchange { exchange: "", routing_key } => {
            (PublicationTarget::Queue(routing_key.to_owned()), String::new(), routing_key.to_owned(), Duration::ZERO)
        }
        Target::Exchange { exchange, routing_key } => {
            (PublicationTarget::Exchange, exchange.to_owned(), routing_key.to_owned(), Duration::ZERO)
        }
        Target::Queue(queue) => {
            (PublicationTarget::Queue(queue.to_owned()), String::new(), queue.to_owned(), Duration::ZERO)
        }
        // A delayed message looks as if it came through the deliver exchange, as it does on RabbitMQ.
        Target::PluginLater { names, plugin, delay } => {
            (PublicationTarget::Queue(names.plugin(plugin)), names.deliver(), plugin.to_owned(), delay)
        }
    };
    if routing_key.len() > SHORT_STRING_BYTES_MAX {
        return Err(PublishError::Refused(format!(
            "its routing key has {} bytes, and may have {SHORT_STRING_BYTES_MAX}",
            routing_key.len()
        )));
    }
    if message.body.len() > BODY_BYTES_MAX {
        return Err(PublishError::Refused(format!(
            "its body has {} bytes, and may have {BODY_BYTES_MAX}",
            message.body.len()
        )));
    }
    if !message.is_shallow() {
        return Err(PublishError::Inexpressible("a header is nested too deeply to be read again".to_owned()));
    }
    let properties = serde_json::to_string(&message.properties)
        .map_err(|error| PublishError::Refused(format!("its properties cannot be kept: {error}")))?;
    let due_at = (!delay.is_zero()).then(|| now().saturating_add(millis(delay)));
    Ok(Publication { target, exchange, routing_key, due_at, properties, body: message.body.clone() })
}

/// Returns the time in milliseconds since 1970.
fn now() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Converts to milliseconds, rounded up so that nothing is early.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_published_waits_for_the_disk_and_what_is_forwarded_does_not() {
        let (commands, mut asked) = mpsc::channel(1);
        let (url, lost) = (Arc::new(BrokerUrl::Sqlite("q.db".into())), Arc::default());
        let session = Session { url, commands, turnstile: Arc::default(), lost, panicked: Arc::default() };
        let message = Message::default();
        for (forwards, expected) in [(false, true), (true, false)] {
            let publish = async {
                let target = Target::Queue("q");
                if forwards { session.forward(target, &message).await } else { session.publish(target, &message).await }
            };
            let answer = async {
                let Some(Command::Publish { flushed, reply, .. }) = asked.recv().await else { panic!("not published") };
                reply.send(Ok(())).unwrap();
                flushed
            };
            let (published, flushed) = tokio::join!(publish, answer);
            published.unwrap();
            assert_eq!(flushed, expected);
        }
    }
}
