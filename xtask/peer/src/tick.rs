//! A publisher that keeps to its schedule, however long the confirmations take.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use broker::{Broker, BrokerUrl, ConnectOptions, Message, Properties, Target};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::event;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Publishes `count` events, and returns once all are confirmed.
pub(crate) async fn publish(broker: &str, exchange: &str, count: u32, rate: u32) -> anyhow::Result<()> {
    let url: BrokerUrl = broker.parse()?;
    let options = ConnectOptions { name: "bench-peer".to_owned(), timeout: CONNECT_LIMIT };
    let broker = Broker::connect(&url, &options).await.context("cannot connect")?;
    let (run, began) = (event::now().as_nanos(), Instant::now());
    let mut unconfirmed = FuturesUnordered::new();
    let mut number = 0;
    while number < count || !unconfirmed.is_empty() {
        let due = began + Duration::from_secs(number.into()) / rate;
        tokio::select! {
            () = tokio::time::sleep_until(due.into()), if number < count => {
                let id = format!("{run}-{number}");
                let body = Bytes::from(event::of(&id, event::now()));
                let json = Message::json(body);
                let properties = Properties {
                    message_id: Some(id),
                    message_type: Some("OrderCreated".to_owned()),
                    ..json.properties.clone()
                };
                let message = Message { properties, ..json };
                let (broker, target) = (&broker, Target::Exchange { exchange, routing_key: "order.created" });
                unconfirmed.push(async move { broker.publish(target, &message).await });
                number += 1;
            }
            Some(confirmed) = unconfirmed.next() => confirmed?,
        }
    }
    drop(unconfirmed);
    broker.close().await;
    Ok(())
}
