//! A consumer has its own channel, and a task that owns it. The task hands out deliveries, and
//! collects acknowledgements in an [`AckTracker`].
//!
//! The task ends when the consumer is closed or dropped, or when the channel is lost. Closing the
//! channel returns the unacknowledged deliveries to the queue.

use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt as _;
use lapin::message::Delivery as AmqpDelivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer as AmqpConsumer};
use tokio::sync::{mpsc, oneshot};

use crate::amqp::acks::{Ack, AckTracker};
use crate::amqp::connection::{AmqpConnection, CLOSE_LIMIT, REPLY_SUCCESS, refusal, refused_name};
use crate::amqp::guard::arrived::{Arrived, from_guard};
use crate::amqp::guard::preamble::Names;
use crate::{BrokerError, Consumer, Delivery, Receipt};

pub(super) async fn start(
    connection: &Arc<AmqpConnection>,
    queue: &str,
    prefetch: u16,
) -> Result<Consumer, BrokerError> {
    let name = refused_name("queue name", queue)?;
    // A prefetch of 0 means unlimited to RabbitMQ.
    let prefetch = prefetch.max(1);
    let channel = connection.channel().await?;
    let explain = |error: lapin::Error| connection.explain(&error);
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(explain)?;
    let consumer = channel
        .basic_consume(name, ShortString::default(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .map_err(explain)?;

    // One more than can be unacknowledged, for the final error.
    let (deliveries, receiver) = mpsc::channel(usize::from(prefetch) + 1);
    let (acks, acked) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel();
    let task = ConsumerTask {
        connection: Arc::clone(connection),
        channel,
        queue: queue.to_owned(),
        deliveries,
        acks,
        acked,
        tracker: AckTracker::new(usize::from(prefetch) / 2),
    };
    let task = tokio::spawn(task.run(consumer, stopped));
    let close = async move {
        drop(stop);
        task.await.unwrap_or_else(|error| Err(BrokerError::Lost(format!("the consumer's task failed: {error}"))))
    };
    Ok(Consumer::new(receiver, Box::pin(close)))
}

struct ConsumerTask {
    connection: Arc<AmqpConnection>,
    channel: Channel,
    queue: String,
    deliveries: mpsc::Sender<Result<Delivery, BrokerError>>,
    /// For the receipts. Holds at most one tag for each outstanding delivery.
    acks: mpsc::UnboundedSender<u64>,
    acked: mpsc::UnboundedReceiver<u64>,
    tracker: AckTracker,
}

impl ConsumerTask {
    async fn run(mut self, mut consumer: AmqpConsumer, mut stopped: oneshot::Receiver<()>) -> Result<(), BrokerError> {
        loop {
            let done = tokio::select! {
                // Acknowledgements before deliveries, to make room in the prefetch window.
                biased;
                // No value is ever sent. The other end is dropped, by dropping or closing the consumer.
                _ = &mut stopped => return self.finish(consumer.tag()).await,
                Some(tag) = self.acked.recv() => {
                    self.settle(tag);
                    self.send_due().await
                }
                () = sleep_until(self.tracker.next_due()) => self.send_due().await,
                arrived = consumer.next() => match arrived {
                    Some(Ok(delivery)) => self.hand_out(delivery),
                    Some(Err(error)) => Err(self.ended(Some(&error))),
                    None => Err(self.ended(None)),
                },
            };
            if let Err(error) = done {
                // There is room for it; sending fails only when the consumer has been dropped.
                let _ = self.deliveries.try_send(Err(error.clone()));
                return Err(error);
            }
        }
    }

    fn hand_out(&mut self, delivery: AmqpDelivery) -> Result<(), BrokerError> {
        // Every connection has the guard.
        let Some(Arrived { message, names, unreadable }) = from_guard(delivery.data) else {
            return Err(BrokerError::Lost(
                "a delivery came around the guard, which is a fault of this program".to_owned(),
            ));
        };
        self.tracker.deliver(delivery.delivery_tag);
        let (exchange, routing_key) = match names {
            Some(Names { exchange, routing_key }) => (exchange, routing_key),
            None => (delivery.exchange.to_string(), delivery.routing_key.to_string()),
        };
        let delivery = Delivery {
            message,
            exchange,
            routing_key,
            redelivered: delivery.redelivered,
            unreadable,
            receipt: Receipt::new(delivery.delivery_tag, self.acks.clone()),
        };
        // RabbitMQ keeps to the prefetch window, so there is room. An error means that the consumer
        // has been dropped: the delivery returns to the queue when the channel closes.
        let _ = self.deliveries.try_send(Ok(delivery));
        Ok(())
    }

    /// Records this acknowledgement and all that have arrived since.
    fn settle(&mut self, tag: u64) {
        let now = Instant::now();
        self.tracker.settle(tag, now);
        while let Ok(tag) = self.acked.try_recv() {
            self.tracker.settle(tag, now);
        }
    }

    async fn send_due(&mut self) -> Result<(), BrokerError> {
        let acks = self.tracker.due(Instant::now());
        self.send(acks).await
    }

    async fn send(&self, acks: Vec<Ack>) -> Result<(), BrokerError> {
        for Ack { tag, multiple } in acks {
            let sent = self.channel.basic_ack(tag, BasicAckOptions { multiple }).await;
            sent.map_err(|error| self.ended(Some(&error)))?;
        }
        Ok(())
    }

    /// Sends the last acknowledgements, makes sure that the queue has them, and closes the channel,
    /// which returns the other deliveries.
    async fn finish(mut self, tag: ShortString) -> Result<(), BrokerError> {
        while let Ok(tag) = self.acked.try_recv() {
            self.tracker.settle(tag, Instant::now());
        }
        let acks = self.tracker.flush();
        let finish = async {
            self.send(acks).await?;
            self.reach_the_queue(tag).await.map_err(|error| self.ended(Some(&error)))
        };
        tokio::time::timeout(CLOSE_LIMIT, finish).await.unwrap_or_else(|_| {
            let seconds = CLOSE_LIMIT.as_secs();
            Err(BrokerError::Lost(format!("it did not take the last acknowledgements within {seconds} s")))
        })
    }

    /// Waits until the queue has all acknowledgements, and closes the channel.
    ///
    /// RabbitMQ's channel holds acknowledgements back while a quorum queue has some 30 of them to
    /// process, and forgets them when it closes. The reply to the cancellation comes from the queue
    /// itself, after everything sent to it before. Only then does the channel send the rest, and it
    /// has done so once it replies to one more request.
    async fn reach_the_queue(&self, tag: ShortString) -> lapin::Result<()> {
        self.channel.basic_cancel(tag, BasicCancelOptions::default()).await?;
        self.channel.basic_qos(1, BasicQosOptions::default()).await?;
        self.channel.close(REPLY_SUCCESS, "OK".into()).await
    }

    /// Explains why there are no more deliveries: the connection is lost, or only this consumer is.
    fn ended(&self, error: Option<&lapin::Error>) -> BrokerError {
        let refused = error.and_then(refusal).map(|(_, text)| text);
        if refused.is_none() && !self.connection.is_up() {
            return self.connection.lost(error);
        }
        let problem = refused.unwrap_or_else(|| "the queue was deleted, or is no longer available".to_owned());
        BrokerError::ConsumerCancelled { queue: self.queue.clone(), problem }
    }
}

impl Drop for ConsumerTask {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.connection.failed("the task of a consumer");
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
