//! Browses the dead-letter queue. The browser holds the letters it looks at. They return to the queue when it
//! closes or dies; removed letters are gone.

use std::time::Duration;

use broker::{Broker, BrokerUrl, Consumer, Delivery, Message, QueueNames, Receipt};
use bytes::Bytes;
use delivery::DeliveryHeaders;
use event::clock::now;
use tokio::time::Instant;
use tracing::warn;

use crate::letter::{Summary, headers_of};
use crate::select::{IdMatch, Selection};
use crate::session::{connect, within_time};

/// Maximum number of letters in one pass, which is the largest prefetch of a consumer.
const LOOKED_AT_MAX: u16 = u16::MAX;
/// How long the next letter may take to arrive.
const NEXT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum bytes of bodies kept in memory. Letters beyond that wait for the next pass.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// How long returned letters may take to become available again. There is a limit because another consumer may
/// have taken them.
const PUT_BACK_TIME_MAX: Duration = Duration::from_secs(2);
/// Interval between checks whether they are.
const PUT_BACK_INTERVAL: Duration = Duration::from_millis(10);

/// A selected dead letter.
pub struct Letter {
    pub summary: Summary,
    pub delivery_headers: DeliveryHeaders,
    /// The message. Its body is empty unless it was requested.
    pub message: Message,
    receipt: Receipt,
}

impl Letter {
    /// Removes the letter from the dead-letter queue.
    pub fn remove(self) {
        self.receipt.ack();
    }
}

/// The part of each letter that the caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Summary,
    Message,
}

/// One pass over the dead-letter queue.
pub struct Browser {
    pub broker: Broker,
    consumer: Consumer,
    queue: String,
    /// Number of letters received, selected or not.
    held: u64,
}

impl Browser {
    /// Connects and finds the selected letters, sorted by time of death with the newest last. Returns `None` if
    /// there is no dead-letter queue.
    pub async fn find(
        url: &BrokerUrl,
        names: &QueueNames,
        selection: &Selection,
        need: Need,
    ) -> anyhow::Result<Option<(Self, Vec<Letter>)>> {
        Self::look(connect(url, "dead-letters").await?, names, selection, need).await
    }

    /// Does the same as [`Self::find`] over an open session.
    pub(super) async fn look(
        broker: Broker,
        names: &QueueNames,
        selection: &Selection,
        need: Need,
    ) -> anyhow::Result<Option<(Self, Vec<Letter>)>> {
        let queue = names.dead();
        let Some(state) = within_time(broker.inspect(&queue)).await? else { return Ok(None) };
        if state.consumers > 0 {
            warn!("another command is looking at the dead letters: what it holds is not seen here");
        }
        let looked_at = state.ready.min(LOOKED_AT_MAX.into());
        if state.ready > looked_at {
            warn!("there are {} dead letters, and only the first {looked_at} are looked at in one go", state.ready);
        }
        let mut consumer = within_time(broker.consume(&queue, LOOKED_AT_MAX)).await?;
        let (letters, held) = collect(&mut consumer, looked_at, selection, need).await?;
        Ok(Some((Self { broker, consumer, queue, held }, narrow(letters, selection)?)))
    }

    /// Returns all letters to the queue except the `removed` ones. Waits until the next pass can see them.
    pub(super) async fn put_back(self, removed: usize) -> anyhow::Result<()> {
        within_time(self.consumer.close()).await?;
        let left = self.held.saturating_sub(removed as u64);
        let until = Instant::now() + PUT_BACK_TIME_MAX;
        // RabbitMQ has the letters by now, but only offers them a moment later.
        while let Some(state) = within_time(self.broker.inspect(&self.queue)).await?
            && state.ready < left
            && Instant::now() < until
        {
            tokio::time::sleep(PUT_BACK_INTERVAL).await;
        }
        Ok(())
    }

    /// Returns the remaining letters to the queue. Waits until the broker has them all.
    pub async fn close(self) -> anyhow::Result<()> {
        let closed = within_time(self.consumer.close()).await;
        self.broker.close().await;
        Ok(closed?)
    }
}

/// Receives `counted` letters and keeps those that match. Also returns how many arrived. Other letters are not
/// kept: the consumer holds them until it closes.
async fn collect(
    consumer: &mut Consumer,
    counted: u64,
    selection: &Selection,
    need: Need,
) -> anyhow::Result<(Vec<Letter>, u64)> {
    let (mut letters, mut bodies_bytes, mut held, now) = (Vec::new(), 0, 0, now());
    for looked_at in 0..counted {
        let Ok(Some(delivery)) = tokio::time::timeout(NEXT_TIMEOUT, consumer.next()).await else {
            warn!("only {looked_at} of {counted} dead letters came: another command took, or holds, the rest");
            break;
        };
        let delivery = delivery?;
        held += 1;
        let delivery_headers = headers_of(&delivery);
        let summary = Summary::new(&delivery_headers, &delivery.message);
        if !selection.matches(&summary, now) {
            continue;
        }
        let Delivery { mut message, receipt, .. } = delivery;
        match need {
            Need::Summary => message.body = Bytes::new(),
            Need::Message => bodies_bytes += message.body.len(),
        }
        // Take at least one letter, however large.
        if bodies_bytes > BODIES_BYTES_MAX && !letters.is_empty() {
            let (count, mebibytes) = (letters.len(), BODIES_BYTES_MAX >> 20);
            warn!("the first {count} that match have more than {mebibytes} MiB: the rest is for another go");
            break;
        }
        letters.push(Letter { summary, delivery_headers, message, receipt });
    }
    letters.sort_by_key(|letter| letter.summary.last_at_millis);
    Ok((letters, held))
}

/// Applies the criteria that depend on all letters together: the meaning of an id prefix, and the limit.
fn narrow(mut letters: Vec<Letter>, selection: &Selection) -> anyhow::Result<Vec<Letter>> {
    if let Some(id) = &selection.id {
        let meant = IdMatch::by(id, letters.iter().map(|letter| &letter.summary));
        if let IdMatch::Several(ids) = &meant {
            let (count, some) = (ids.len(), ids.iter().take(5).cloned().collect::<Vec<_>>().join(", "));
            anyhow::bail!("{count} dead letters have an id that begins with {id:?} ({some}, …): give more of it");
        }
        letters.retain(|letter| meant.includes(id, &letter.summary));
    }
    letters.truncate(selection.limit.map_or(usize::MAX, Into::into));
    Ok(letters)
}
