//! RabbitMQ peers: a bare lapin consumer and publisher.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, PublisherConfirm};

use crate::event;

const PERSISTENT: u8 = 2;
const REPLY_SUCCESS: u16 = 200;

async fn open(url: &str) -> anyhow::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.context("cannot connect")?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

async fn begin(channel: &Channel, queue: &str, prefetch: u16) -> anyhow::Result<Consumer> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let (name, options) = (ShortString::default(), BasicConsumeOptions::default());
    Ok(channel.basic_consume(ShortString::try_new(queue)?, name, options, FieldTable::default()).await?)
}

/// Returns the time from the first to the last of `count` deliveries. Acknowledges once per half of the prefetch.
pub(crate) async fn consume(url: &str, queue: &str, prefetch: u16, count: usize) -> anyhow::Result<Duration> {
    let (connection, channel) = open(url).await?;
    let mut consumer = begin(&channel, queue, prefetch).await?;
    let half = usize::from(prefetch / 2).max(1);
    let (mut first, mut last) = (None, Instant::now());
    for number in 1..=count {
        let delivery = consumer.next().await.context("the queue is gone")??;
        last = Instant::now();
        first.get_or_insert(last);
        if number % half == 0 || number == count {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await?;
        }
    }
    end(&connection, &channel, consumer).await?;
    Ok(last.duration_since(first.unwrap_or(last)))
}

/// Returns when each event was sent, as it says, and when it arrived. Prints a line once it is ready.
pub(crate) async fn times(
    url: &str,
    queue: &str,
    prefetch: u16,
    count: usize,
) -> anyhow::Result<Vec<(Duration, Duration)>> {
    let (connection, channel) = open(url).await?;
    let mut consumer = begin(&channel, queue, prefetch).await?;
    println!("ready");
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let delivery = consumer.next().await.context("the queue is gone")??;
        let arrived = event::now();
        let sent = event::sent_at(&delivery.data).context("an event does not say when it was sent")?;
        times.push((sent, arrived));
        channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await?;
    }
    end(&connection, &channel, consumer).await?;
    Ok(times)
}

/// Closes the connection. The answer to the cancellation proves that the queue has the acknowledgements.
async fn end(connection: &Connection, channel: &Channel, consumer: Consumer) -> anyhow::Result<()> {
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    channel.close(REPLY_SUCCESS, "OK".into()).await?;
    connection.close(REPLY_SUCCESS, "OK".into()).await?;
    Ok(())
}

/// Returns the time from the first publish to the last confirmation.
pub(crate) async fn publish(url: &str, exchange: &str, window: usize, count: usize) -> anyhow::Result<Duration> {
    let (connection, channel) = open(url).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let exchange = ShortString::try_new(exchange)?;
    let mut unconfirmed: VecDeque<PublisherConfirm> = VecDeque::with_capacity(window);
    let began = Instant::now();
    for number in 0..count {
        if unconfirmed.len() >= window
            && let Some(oldest) = unconfirmed.pop_front()
        {
            confirmed(oldest.await?)?;
        }
        let id = number.to_string();
        let body = event::of(&id, event::now());
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_type("OrderCreated".into())
            .with_message_id(ShortString::try_new(id)?);
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let published = channel.basic_publish(exchange.clone(), "order.created".into(), options, &body, properties);
        unconfirmed.push_back(published.await?);
    }
    for oldest in unconfirmed {
        confirmed(oldest.await?)?;
    }
    let took = began.elapsed();
    connection.close(REPLY_SUCCESS, "OK".into()).await?;
    Ok(took)
}

fn confirmed(confirmation: Confirmation) -> anyhow::Result<()> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        other => bail!("an event was not taken: {other:?}"),
    }
}
