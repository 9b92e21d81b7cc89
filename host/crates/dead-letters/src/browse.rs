//! Looking through the dead-letter queue. What is looked at is held, and comes back when the
//! browser closes or dies; what is removed is gone.

use std::time::Duration;

use broker::{Broker, BrokerUrl, Consumer, Delivery, Message, QueueNames, Receipt};
use bytes::Bytes;
use delivery::DeliveryHeaders;
use event::clock::now;
use tokio::time::Instant;
use tracing::warn;

use crate::letter::{Summary, trail_of};
use crate::select::{Meant, Selection};
use crate::session::{connect, within_time};

/// How many letters are looked at in one go: what one consumer can hold.
const LOOKED_AT_MAX: u16 = u16::MAX;
/// How long the next letter may take to come.
const NEXT_TIMEOUT: Duration = Duration::from_secs(10);
/// The bodies that are kept in memory; letters beyond that wait for the next go.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// How long what was put back may take to be offered again, and between two looks whether it is. Somebody else may have
/// taken it meanwhile.
const PUT_BACK_TIME_MAX: Duration = Duration::from_secs(2);
const PUT_BACK_INTERVAL: Duration = Duration::from_millis(10);

/// A letter that was selected.
pub struct Letter {
    pub summary: Summary,
    pub delivery_headers: DeliveryHeaders,
    /// Without its body, where that was not asked for.
    pub message: Message,
    receipt: Receipt,
}

impl Letter {
    /// It is gone from the dead letters.
    pub fn remove(self) {
        self.receipt.ack();
    }
}

/// What is needed of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Summary,
    Message,
}

/// A look through the queue.
pub struct Browser {
    pub broker: Broker,
    consumer: Consumer,
    queue: String,
    /// Letters that came, whether or not they were selected.
    held: u64,
}

impl Browser {
    /// Finds the letters that are selected, those that died last at the end. `None`: there is no
    /// dead-letter queue.
    pub async fn find(
        url: &BrokerUrl,
        names: &QueueNames,
        selection: &Selection,
        need: Need,
    ) -> anyhow::Result<Option<(Self, Vec<Letter>)>> {
        Self::look(connect(url, "dead-letters").await?, names, selection, need).await
    }

    /// The same in a session that is open already.
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

    /// Gives back what was not removed, which are all but so many. Returns when the next look sees it.
    pub(super) async fn put_back(self, removed: usize) -> anyhow::Result<()> {
        within_time(self.consumer.close()).await?;
        let left = self.held.saturating_sub(removed as u64);
        let until = Instant::now() + PUT_BACK_TIME_MAX;
        // RabbitMQ has them then, and offers them a moment later.
        while let Some(state) = within_time(self.broker.inspect(&self.queue)).await?
            && state.ready < left
            && Instant::now() < until
        {
            tokio::time::sleep(PUT_BACK_INTERVAL).await;
        }
        Ok(())
    }

    /// Gives back what was not removed. Returns when the broker has it all.
    pub async fn close(self) -> anyhow::Result<()> {
        let closed = within_time(self.consumer.close()).await;
        self.broker.close().await;
        Ok(closed?)
    }
}

/// Takes as many letters as were counted, and keeps those that match; and how many came. The others need not be kept:
/// they are held until the consumer closes.
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
        let delivery_headers = trail_of(&delivery);
        let summary = Summary::new(&delivery_headers, &delivery.message);
        if !selection.matches(&summary, now) {
            continue;
        }
        let Delivery { mut message, receipt, .. } = delivery;
        match need {
            Need::Summary => message.body = Bytes::new(),
            Need::Message => bodies_bytes += message.body.len(),
        }
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

/// What can only be said of all letters together: what an id stands for, and which are the first.
fn narrow(mut letters: Vec<Letter>, selection: &Selection) -> anyhow::Result<Vec<Letter>> {
    if let Some(id) = &selection.id {
        let meant = Meant::by(id, letters.iter().map(|letter| &letter.summary));
        if let Meant::Several(ids) = &meant {
            let (count, some) = (ids.len(), ids.iter().take(5).cloned().collect::<Vec<_>>().join(", "));
            anyhow::bail!("{count} dead letters have an id that begins with {id:?} ({some}, …): give more of it");
        }
        letters.retain(|letter| meant.includes(id, &letter.summary));
    }
    letters.truncate(selection.limit.map_or(usize::MAX, Into::into));
    Ok(letters)
}
