//! The consume loop takes deliveries from one queue and handles each in a task of its own.

use std::sync::Arc;
use std::time::Duration;

use broker::{BrokerError, Consumer, Delivery};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::quarantine::Caution;

/// How long closing a consumer may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Consumes until `enough`, lets work in flight finish unless `give_up` comes first, and gives back the rest.
/// Returns how many messages were given back.
///
/// An error means that the consumer is lost, and with it the right to acknowledge messages in flight. They will
/// be offered again. A panic while handling a message also ends the session, because the message would
/// otherwise stay unacknowledged forever.
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
    // The guard also ends the tasks if this future is dropped.
    let end_tasks = CancellationToken::new();
    let _end_tasks = end_tasks.clone().drop_guard();
    let mut enough = std::pin::pin!(enough);
    let panicked = Arc::new(Notify::new());
    let mut has_panicked = std::pin::pin!(panicked.notified());
    loop {
        let next = tokio::select! {
            // In this order: after a stop or a panic no more messages are taken.
            biased;
            () = &mut enough => break,
            () = &mut has_panicked => {
                caution.host_failed("a task of the host panicked");
                return Err(BrokerError::Lost("the host panicked over a message".to_owned()));
            }
            next = consumer.next() => next,
        };
        match next {
            // The prefetch bounds the number of tasks.
            Some(Ok(delivery)) => {
                // Box the future before moving it, because it is large.
                let (work, end) = (Box::pin(work(delivery)), end_tasks.clone());
                let noticed = Noticed(Arc::clone(&panicked));
                // Dropping a delivery gives it back.
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

/// Sends a notification if it is dropped by a panic.
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
        let ended = consume(consumer, std::future::pending(), &never, &caution, async |_| panic!("told to"));
        let error = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap().unwrap_err();
        assert!(matches!(&error, BrokerError::Lost(why) if why.contains("panicked")), "{error}");
        assert_eq!(caution.failed().as_deref(), Some("a task of the host panicked"));
    }
}
