//! Looking through the dead-letter queue. What is looked at is held, and comes back when the
//! browser closes or dies; what is settled is gone.

use std::time::Duration;

use broker::{Broker, BrokerUrl, ConnectOptions, Consumer, Delivery, Message, QueueNames, Receipt};
use tracing::warn;

use crate::dead_letters::letter::{Summary, trail_of};
use crate::dead_letters::select::Selection;
use crate::delivery::Trail;
use crate::delivery::clock::now;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many letters are looked at in one go: what one consumer can hold.
const LOOKED_AT_MAX: u16 = u16::MAX;
/// How long the next letter may take to come.
const NEXT_TIMEOUT: Duration = Duration::from_secs(10);

/// A letter that was selected.
pub(super) struct Letter {
    pub(super) summary: Summary,
    pub(super) trail: Trail,
    pub(super) message: Message,
    receipt: Receipt,
}

impl Letter {
    /// It is gone from the dead letters.
    pub(super) fn remove(self) {
        self.receipt.ack();
    }
}

/// A look through the queue.
pub(super) struct Browser {
    pub(super) broker: Broker,
    consumer: Consumer,
    /// Held, so that each letter is seen once.
    others: Vec<Receipt>,
}

pub(super) async fn connect(url: &BrokerUrl) -> anyhow::Result<Broker> {
    let options = ConnectOptions { name: "notify-host dead-letters".to_owned(), timeout: CONNECT_TIMEOUT };
    Ok(Broker::connect(url, &options).await?)
}

impl Browser {
    /// Finds the letters that are selected, those that died last at the end. `None`: there is no
    /// dead-letter queue.
    pub(super) async fn find(
        broker: Broker,
        names: &QueueNames,
        selection: &Selection,
    ) -> anyhow::Result<Option<(Self, Vec<Letter>)>> {
        let queue = names.dead();
        let Some(state) = broker.inspect(&queue).await? else { return Ok(None) };
        if state.consumers > 0 {
            warn!("another command is looking at the dead letters: what it holds is not seen here");
        }
        if state.ready > LOOKED_AT_MAX.into() {
            warn!("there are {} dead letters; only the first {LOOKED_AT_MAX} are looked at", state.ready);
        }
        let mut consumer = broker.consume(&queue, LOOKED_AT_MAX).await?;
        let (mut letters, mut others, now) = (Vec::new(), Vec::new(), now());
        for _ in 0..state.ready.min(LOOKED_AT_MAX.into()) {
            let delivery = match tokio::time::timeout(NEXT_TIMEOUT, consumer.next()).await {
                Ok(Some(delivery)) => delivery?,
                // Taken by somebody else since they were counted.
                Ok(None) | Err(_) => break,
            };
            let trail = trail_of(&delivery);
            let summary = Summary::new(&trail, &delivery.message);
            let Delivery { message, receipt, .. } = delivery;
            if selection.matches(&summary, now) {
                letters.push(Letter { summary, trail, message, receipt });
            } else {
                others.push(receipt);
            }
        }
        letters.sort_by_key(|letter| letter.summary.last_at_millis);
        Ok(Some((Self { broker, consumer, others }, letters)))
    }

    /// Gives back what was not removed. Returns when the broker has it all.
    pub(super) async fn close(self, letters: Vec<Letter>) -> anyhow::Result<()> {
        drop((self.others, letters));
        self.consumer.close().await?;
        self.broker.close().await;
        Ok(())
    }
}
