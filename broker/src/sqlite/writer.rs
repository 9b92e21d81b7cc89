//! The thread that owns the connection: it gathers requests, carries them out in one transaction,
//! and replies once that is committed.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::sqlite::command::Command;
use crate::sqlite::liveness_lock::LivenessLock;
use crate::sqlite::row::RowContent;
use crate::sqlite::store::{self, TakenMessage};
use crate::sqlite::transaction::{ConsumerFeed, Effects, TransactionContext, dead_consumers};
use crate::sqlite::wakeup::Wakeup;
use crate::sqlite::{now, schema};
use crate::{BrokerError, Delivery, Receipt};

/// Maximum commands in one transaction, so that other processes get their turn.
const COMMANDS_PER_TRANSACTION: usize = 1024;
/// How often a consumer polls, for dead sessions and for messages that no wakeup announced.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum number of messages in hand for acknowledgements to wait for more. A transaction costs as
/// much as some twenty messages in it.
const IN_HAND_MIN: u32 = 32;
/// Time to wait for each message in hand. No consumer handles messages faster, so none runs out meanwhile.
const WAIT_EACH: Duration = Duration::from_micros(16);
/// Shortest wait that the timer can do.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(5);

/// Runs the thread. `opened` gets the result of opening; `lost` gets the reason if it fails later.
pub(super) fn run(
    path: &Path,
    commands: mpsc::Receiver<Command>,
    lost: Arc<OnceLock<String>>,
    opened: oneshot::Sender<Result<(), String>>,
) {
    // For its timers and channels; the work itself blocks.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let ready = schema::open(path).and_then(|db| Ok((db, runtime.map_err(|error| error.to_string())?)));
    match ready {
        Ok((db, runtime)) => {
            let writer = Writer::new(path.to_owned(), db, commands, lost);
            if opened.send(Ok(())).is_ok() {
                runtime.block_on(writer.serve());
            }
        }
        Err(problem) => {
            let _ = opened.send(Err(problem));
        }
    }
}

fn must_be_flushed(command: &Command) -> bool {
    matches!(command, Command::Publish { flushed: true, .. } | Command::Declare { .. } | Command::Purge { .. })
}

/// Returns how long acknowledgements wait for more, with this many messages in hand. `pause` is how
/// long there is nothing to assign.
fn acks_wait(in_hand: usize, pause: Option<Duration>) -> Option<Duration> {
    let in_hand = u32::try_from(in_hand).unwrap_or(u32::MAX);
    (in_hand >= IN_HAND_MIN && pause != Some(Duration::ZERO))
        .then(|| WAIT_EACH.saturating_mul(in_hand).clamp(WAIT_MIN, WAIT_MAX))
}

struct Writer {
    path: PathBuf,
    db: Connection,
    /// The current setting of the connection: whether a commit waits for the disk.
    flushing: Option<bool>,
    commands: mpsc::Receiver<Command>,
    acks: (mpsc::UnboundedSender<u64>, mpsc::UnboundedReceiver<u64>),
    dropped: (mpsc::UnboundedSender<i64>, mpsc::UnboundedReceiver<i64>),
    lost: Arc<OnceLock<String>>,
    wakeup: Wakeup,
    liveness_lock: Option<LivenessLock>,
    consumers: BTreeMap<i64, ConsumerFeed>,
    /// Consumer of each message in hand, by message id.
    holders: HashMap<i64, i64>,
    looked: Option<Instant>,
}

/// Requests that have arrived since the last transaction.
#[derive(Default)]
struct Work {
    commands: Vec<Command>,
    acks: Vec<u64>,
    dropped: Vec<i64>,
    /// Nobody can send commands any more.
    ended: bool,
}

impl Work {
    /// Returns whether nobody waits for this work.
    fn is_in_no_hurry(&self) -> bool {
        self.commands.is_empty() && self.dropped.is_empty() && !self.ended
    }
}

impl Writer {
    fn new(path: PathBuf, db: Connection, commands: mpsc::Receiver<Command>, lost: Arc<OnceLock<String>>) -> Self {
        Self {
            wakeup: Wakeup::of(&path),
            path,
            db,
            flushing: None,
            commands,
            acks: mpsc::unbounded_channel(),
            dropped: mpsc::unbounded_channel(),
            lost,
            liveness_lock: None,
            consumers: BTreeMap::new(),
            holders: HashMap::new(),
            looked: None,
        }
    }

    async fn serve(mut self) {
        loop {
            let mut work = self.gather(self.pause()).await;
            let ended = work.ended;
            if ended {
                work.dropped.extend(self.consumers.keys());
            }
            match self.carry_out(work) {
                Ok(Some(closed)) => {
                    drop(self);
                    let _ = closed.send(());
                    return;
                }
                Ok(None) if ended => return,
                Ok(None) => {}
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Reports the lost session to its consumers. Other sessions give back their messages once they
    /// find the liveness lock released.
    fn fail(self, error: rusqlite::Error) {
        let reason = format!("sqlite:{}: {}", self.path.display(), schema::explain(error));
        for feed in self.consumers.values() {
            // One slot is kept for this. If even that is taken, the end of the stream tells the consumer.
            let _ = feed.deliveries.try_send(Err(BrokerError::Lost(reason.clone())));
        }
        let _ = self.lost.set(reason);
    }

    /// Returns how long there is nothing to do, unless a request arrives.
    fn pause(&self) -> Option<Duration> {
        let now = now();
        let looks = self.consumers.values().filter_map(|feed| feed.until_look(now));
        (!self.consumers.is_empty()).then(|| looks.fold(LOOK_INTERVAL, Duration::min))
    }

    async fn gather(&mut self, pause: Option<Duration>) -> Work {
        let mut work = Work::default();
        if pause != Some(Duration::ZERO) {
            self.wait(&mut work, pause, true).await;
        }
        self.gather_what_is_there(&mut work);
        if work.is_in_no_hurry()
            && let Some(wait) = acks_wait(self.holders.len().saturating_sub(work.acks.len()), self.pause())
        {
            self.wait(&mut work, Some(wait), false).await;
            self.gather_what_is_there(&mut work);
        }
        // Checked without a wait too: a wakeup is for queues that seemed empty.
        if self.wakeup.woken().now_or_never().is_some() {
            self.look_again();
        }
        work
    }

    /// Waits until a request arrives, but no longer than `pause`.
    async fn wait(&mut self, work: &mut Work, pause: Option<Duration>, for_acks: bool) {
        let woken = self.wakeup.woken();
        let is_woken = tokio::select! {
            command = self.commands.recv() => {
                work.ended = command.is_none();
                work.commands.extend(command);
                false
            }
            Some(id) = self.acks.1.recv(), if for_acks => {
                work.acks.push(id);
                false
            }
            Some(id) = self.dropped.1.recv() => {
                work.dropped.push(id);
                false
            }
            () = woken, if pause.is_some() => true,
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => false,
        };
        if is_woken {
            self.look_again();
        }
    }

    fn gather_what_is_there(&mut self, work: &mut Work) {
        while work.commands.len() < COMMANDS_PER_TRANSACTION {
            match self.commands.try_recv() {
                Ok(command) => work.commands.push(command),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    work.ended = true;
                    break;
                }
            }
        }
        // After the commands: acknowledgements given before a consumer was closed are among these.
        while let Ok(id) = self.acks.1.try_recv() {
            work.acks.push(id);
        }
        while let Ok(id) = self.dropped.1.try_recv() {
            work.dropped.push(id);
        }
    }

    /// Forgets which queues were empty.
    fn look_again(&mut self) {
        self.consumers.values_mut().for_each(ConsumerFeed::look_again);
    }

    /// Carries out the work in one transaction. Any error ends the session: the requests are then
    /// not done, and nobody is told that they were.
    fn carry_out(&mut self, work: Work) -> rusqlite::Result<Option<oneshot::Sender<()>>> {
        let now = now();
        let dead = self.look_around()?;
        let idle = work.commands.is_empty() && work.acks.is_empty() && work.dropped.is_empty() && dead.is_empty();
        if idle && !self.something_to_take(now)? {
            return Ok(None);
        }
        // SQLite does not change `synchronous` inside a transaction.
        self.set_flushing(work.commands.iter().any(must_be_flushed))?;

        let mut effects = Effects::default();
        // Only this thread uses the connection, and no other transaction is open on it.
        let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        for tag in work.acks {
            let id = tag.cast_signed();
            if let Some(consumer) = self.holders.remove(&id) {
                store::delete(&transaction, id)?;
                if let Some(feed) = self.consumers.get_mut(&consumer) {
                    feed.held -= 1;
                }
            }
        }
        let mut context = TransactionContext {
            db: &transaction,
            path: &self.path,
            liveness_lock: &mut self.liveness_lock,
            wakeup: &mut self.wakeup,
            consumers: &mut self.consumers,
            holders: &mut self.holders,
            dropped: &self.dropped.0,
        };
        for consumer in dead {
            context.give_back(consumer, &mut effects)?;
        }
        for command in work.commands {
            context.execute(command, &mut effects)?;
        }
        for consumer in work.dropped {
            context.remove_consumer(consumer, &mut effects)?;
        }
        context.take(now, &mut effects)?;
        transaction.commit()?;

        for reply in effects.replies {
            reply();
        }
        if effects.wake_others {
            self.wakeup.wake_others();
        }
        self.hand_out(effects.taken);
        Ok(effects.close)
    }

    /// Sets whether commits wait for the disk. Taking and acknowledging need no wait: lost in a
    /// power cut, they repeat a delivery.
    fn set_flushing(&mut self, flushing: bool) -> rusqlite::Result<()> {
        if self.flushing != Some(flushing) {
            self.db.pragma_update(None, "synchronous", if flushing { "FULL" } else { "NORMAL" })?;
            self.flushing = Some(flushing);
        }
        Ok(())
    }

    /// Looks for dead consumers, and for messages that no wakeup announced, once every [`LOOK_INTERVAL`].
    fn look_around(&mut self) -> rusqlite::Result<Vec<i64>> {
        let Some(liveness_lock) = &self.liveness_lock else { return Ok(Vec::new()) };
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_INTERVAL) {
            return Ok(Vec::new());
        }
        self.looked = Some(Instant::now());
        let dead = dead_consumers(&self.db, &self.path, liveness_lock.name())?;
        self.look_again();
        Ok(dead)
    }

    /// Looks without a transaction, which would keep others from writing: most looks find nothing.
    fn something_to_take(&mut self, now: i64) -> rusqlite::Result<bool> {
        for feed in self.consumers.values_mut().filter(|feed| feed.until_look(now) == Some(Duration::ZERO)) {
            if store::has_ready(&self.db, feed.queue, now)? {
                return Ok(true);
            }
            feed.was_empty(store::next_due(&self.db, feed.queue)?);
        }
        Ok(false)
    }

    fn hand_out(&self, taken: Vec<(i64, Vec<TakenMessage>)>) {
        for (consumer, taken) in taken {
            let Some(feed) = self.consumers.get(&consumer) else { continue };
            for TakenMessage { id, redelivered, content } in taken {
                let RowContent { exchange, routing_key, message, unreadable } = content;
                let receipt = Receipt::new(id.cast_unsigned(), self.acks.0.clone());
                let delivery = Delivery { message, exchange, routing_key, redelivered, unreadable, receipt };
                // There is a slot for each, up to the prefetch. An error means that the consumer
                // was dropped; the thread gives its messages back once it hears of the drop.
                let _ = feed.deliveries.try_send(Ok(delivery));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::publication;
    use crate::{Message, Target};

    #[test]
    fn only_what_has_no_other_copy_waits_for_the_disk() {
        let publish = |flushed| {
            let publication = publication(Target::Queue("q"), &Message::default()).unwrap();
            Command::Publish { publication, flushed, reply: oneshot::channel().0 }
        };
        assert!(must_be_flushed(&publish(true)));
        assert!(!must_be_flushed(&publish(false)), "its message is still there");
        assert!(must_be_flushed(&Command::Declare { items: Vec::new(), reply: oneshot::channel().0 }));
        assert!(!must_be_flushed(&Command::CloseConsumer { id: 1, reply: oneshot::channel().0 }));
    }

    #[test]
    fn acknowledgements_wait_for_others_while_there_is_enough_in_hand() {
        let wait = |in_hand| acks_wait(in_hand, Some(LOOK_INTERVAL));
        assert_eq!(wait(0), None, "who has one at a time waits for the next");
        assert_eq!(wait(31), None);
        assert_eq!(wait(32), Some(WAIT_MIN));
        assert_eq!(wait(256), Some(Duration::from_micros(4096)));
        assert_eq!(wait(usize::MAX), Some(WAIT_MAX));
        assert_eq!(acks_wait(256, Some(Duration::ZERO)), None, "something has come, and somebody has room for it");
    }
}
