//! The pump takes deliveries from one queue and has each worked on in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use broker::{BrokerError, Consumer, Delivery};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::quarantine::Caution;

/// How long a consumer may take to say good-bye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Works until `enough`, lets what is in flight finish unless `give_up` comes first, and gives
/// back the rest. Returns how many messages that were.
///
/// An error means that the consumer is lost, and with it the right to acknowledge what is in
/// flight: those messages come again. A panic over a message ends the session as well, for else the message
/// would stay in hand for ever.
pub(super) async fn consume<W>(
    mut consumer: Consumer,
    enough: impl Future<Output = ()>,
    give_up: &CancellationToken,
    caution: &Caution,
    work: impl Fn(Delivery) -> W,
) -> Result<usize, BrokerError>
where
    W: Future<Output = ()> + Send + 'static,
{
    let tasks = TaskTracker::new();
    // Also ends the tasks when this future is dropped.
    let end_tasks = CancellationToken::new();
    let _end_tasks = end_tasks.clone().drop_guard();
    let mut enough = std::pin::pin!(enough);
    let panicked = Arc::new(Notify::new());
    let mut has_panicked = std::pin::pin!(panicked.notified());
    loop {
        let next = tokio::select! {
            biased;
            () = &mut enough => break,
            () = &mut has_panicked => {
                caution.host_failed("a task of the host panicked");
                return Err(BrokerError::Lost("the host panicked over a message".to_owned()));
            }
            next = consumer.next() => next,
        };
        match next {
            // The prefetch bounds how many there are.
            Some(Ok(delivery)) => {
                // On the heap before it is handed on from one to the next: it is large.
                let (work, end) = (Box::pin(work(delivery)), end_tasks.clone());
                let noticed = Noticed(Arc::clone(&panicked));
                // Dropping a delivery is to give it back.
                tasks.spawn(async move {
                    let _noticed = noticed;
                    end.run_until_cancelled(work).await;
                });
            }
            Some(Err(error)) => return Err(error),
            None => return Err(BrokerError::Lost("the consumer ended".to_owned())),
        }
    }
    tasks.close();
    let _ = give_up.run_until_cancelled(tasks.wait()).await;
    let given_back = tasks.len();
    end_tasks.cancel();
    tasks.wait().await;
    match tokio::time::timeout(CLOSE_TIMEOUT, consumer.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(%error, "the last acknowledgements may not have arrived; their messages come again");
        }
        Err(_) => warn!("the broker did not answer; messages that were acknowledged last may come again"),
    }
    Ok(given_back)
}

/// Tells if it is dropped because of a panic.
struct Noticed(Arc<Notify>);

impl Drop for Noticed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use broker::{Broker, BrokerUrl, ConnectOptions, ExchangeKind, Message, QueueNames, Source, Target};

    use super::*;
    use crate::quarantine::Quarantine;

    #[tokio::test]
    async fn a_panic_over_a_message_ends_the_session_instead_of_leaving_the_message_in_hand() {
        let folder = tempfile::tempdir().unwrap();
        let url = BrokerUrl::Sqlite(folder.path().join("queue.db"));
        let options = ConnectOptions { name: "test".to_owned(), timeout: Duration::from_secs(30) };
        let broker = Broker::connect(&url, &options).await.unwrap();
        let source = Source {
            exchange: "e".to_owned(),
            kind: ExchangeKind::Topic,
            names: QueueNames::new("q"),
            bindings: Vec::new(),
        };
        broker.declare_source(&source).await.unwrap();
        broker.publish(Target::Queue("q"), &Message::json("{}")).await.unwrap();
        let consumer = broker.consume("q", 1).await.unwrap();
        let caution = Quarantine::open(None).begin(CancellationToken::new());
        let never = CancellationToken::new();
        let pumped = consume(consumer, std::future::pending(), &never, &caution, async |_| panic!("told to"));
        let error = tokio::time::timeout(Duration::from_secs(30), pumped).await.unwrap().unwrap_err();
        assert!(matches!(&error, BrokerError::Lost(why) if why.contains("panicked")), "{error}");
        assert_eq!(caution.failed().as_deref(), Some("a task of the host panicked"));
    }
}
