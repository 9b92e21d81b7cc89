//! The thread that owns the connection: it gathers what there is to do, does it in one
//! transaction, and answers once that is committed.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::sqlite::command::Command;
use crate::sqlite::liveness_lock::LivenessLock;
use crate::sqlite::row::Content;
use crate::sqlite::store::{self, Taken};
use crate::sqlite::transaction::{Effects, Hands, Intake, dead_consumers};
use crate::sqlite::wakeup::Wakeup;
use crate::sqlite::{now, schema};
use crate::{BrokerError, Delivery, Receipt};

/// What one transaction does at most, so that other processes have their turn.
const COMMANDS_PER_TRANSACTION: usize = 1024;
/// How often a consumer looks by itself: for the dead, and for what no doorbell announced.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Acknowledgements wait for others, while consumers have so many messages in hand: a transaction costs as much as some
/// twenty messages in it.
const IN_HAND_MIN: u32 = 32;
/// How long, for each message in hand: nobody handles them faster than that, and so nobody waits for more of them.
const WAIT_EACH: Duration = Duration::from_micros(16);
/// What the timer can do.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(5);

/// The thread's life. `opened` is told how opening went; `lost` gets the reason, if it fails later.
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

/// How long acknowledgements wait for others, with so many messages in the hands of consumers. `pause`: how long there is nothing
/// to give them.
fn acks_wait(in_hand: usize, pause: Option<Duration>) -> Option<Duration> {
    let in_hand = u32::try_from(in_hand).unwrap_or(u32::MAX);
    (in_hand >= IN_HAND_MIN && pause != Some(Duration::ZERO))
        .then(|| WAIT_EACH.saturating_mul(in_hand).clamp(WAIT_MIN, WAIT_MAX))
}

struct Writer {
    path: PathBuf,
    db: Connection,
    /// As the connection is set: whether a commit waits for the disk.
    flushing: Option<bool>,
    commands: mpsc::Receiver<Command>,
    acks: (mpsc::UnboundedSender<u64>, mpsc::UnboundedReceiver<u64>),
    dropped: (mpsc::UnboundedSender<i64>, mpsc::UnboundedReceiver<i64>),
    lost: Arc<OnceLock<String>>,
    wakeup: Wakeup,
    liveness_lock: Option<LivenessLock>,
    consumers: BTreeMap<i64, Intake>,
    /// Which consumer has which message.
    holders: HashMap<i64, i64>,
    looked: Option<Instant>,
}

/// What has come in since the last transaction.
#[derive(Default)]
struct Work {
    commands: Vec<Command>,
    acks: Vec<u64>,
    dropped: Vec<i64>,
    /// Nobody can ask for anything any more.
    ended: bool,
}

impl Work {
    /// Nobody waits for it.
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

    /// The session is lost: tell everybody. Their messages are given back by the others, who find
    /// the presence gone.
    fn fail(self, error: rusqlite::Error) {
        let reason = format!("sqlite:{}: {}", self.path.display(), schema::explain(error));
        for intake in self.consumers.values() {
            // One place is kept for this; if even that is taken, the end of the stream says it.
            let _ = intake.deliveries.try_send(Err(BrokerError::Lost(reason.clone())));
        }
        let _ = self.lost.set(reason);
    }

    /// How long there is nothing to do, unless something comes in.
    fn pause(&self) -> Option<Duration> {
        let now = now();
        let looks = self.consumers.values().filter_map(|intake| intake.until_look(now));
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
        // Also where there was no wait: it rings for queues that seemed empty.
        if self.wakeup.rung().now_or_never().is_some() {
            self.look_again();
        }
        work
    }

    /// Waits until something comes in, but no longer than that.
    async fn wait(&mut self, work: &mut Work, pause: Option<Duration>, for_acks: bool) {
        let rung = self.wakeup.rung();
        let is_rung = tokio::select! {
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
            () = rung, if pause.is_some() => true,
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => false,
        };
        if is_rung {
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
        // After the commands: what was acknowledged before a consumer was closed is among these.
        while let Ok(id) = self.acks.1.try_recv() {
            work.acks.push(id);
        }
        while let Ok(id) = self.dropped.1.try_recv() {
            work.dropped.push(id);
        }
    }

    /// Queues that were empty need not be any more.
    fn look_again(&mut self) {
        self.consumers.values_mut().for_each(Intake::look_again);
    }

    /// One transaction. Whatever goes wrong in it ends the session: what was asked is then not
    /// done, and nobody is told that it was.
    fn carry_out(&mut self, work: Work) -> rusqlite::Result<Option<oneshot::Sender<()>>> {
        let now = now();
        let dead = self.look_around()?;
        let idle = work.commands.is_empty() && work.acks.is_empty() && work.dropped.is_empty() && dead.is_empty();
        if idle && !self.something_to_take(now)? {
            return Ok(None);
        }
        self.set_flushing(work.commands.iter().any(must_be_flushed))?;

        let mut effects = Effects::default();
        // The connection is this thread's alone, and no other transaction is open on it.
        let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        for tag in work.acks {
            let id = tag.cast_signed();
            if let Some(consumer) = self.holders.remove(&id) {
                store::delete(&transaction, id)?;
                if let Some(intake) = self.consumers.get_mut(&consumer) {
                    intake.held -= 1;
                }
            }
        }
        let mut hands = Hands {
            db: &transaction,
            path: &self.path,
            liveness_lock: &mut self.liveness_lock,
            wakeup: &mut self.wakeup,
            consumers: &mut self.consumers,
            holders: &mut self.holders,
            dropped: &self.dropped.0,
        };
        for consumer in dead {
            hands.give_back(consumer, &mut effects)?;
        }
        for command in work.commands {
            hands.execute(command, &mut effects)?;
        }
        for consumer in work.dropped {
            hands.remove_consumer(consumer, &mut effects)?;
        }
        hands.take(now, &mut effects)?;
        transaction.commit()?;

        for answer in effects.answers {
            answer();
        }
        if effects.ring {
            self.wakeup.ring();
        }
        self.hand_out(effects.taken);
        Ok(effects.close)
    }

    /// Whether commits wait for the disk. Taking and acknowledging need not: lost in a power cut, they
    /// repeat a delivery.
    fn set_flushing(&mut self, flushing: bool) -> rusqlite::Result<()> {
        if self.flushing != Some(flushing) {
            self.db.pragma_update(None, "synchronous", if flushing { "FULL" } else { "NORMAL" })?;
            self.flushing = Some(flushing);
        }
        Ok(())
    }

    /// Once in a while: the consumers of sessions that have ended without good-bye, and what no doorbell announced.
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

    /// Without a transaction, which would keep others from writing: most looks find nothing.
    fn something_to_take(&mut self, now: i64) -> rusqlite::Result<bool> {
        for intake in self.consumers.values_mut().filter(|intake| intake.until_look(now) == Some(Duration::ZERO)) {
            if store::has_ready(&self.db, intake.queue, now)? {
                return Ok(true);
            }
            intake.was_empty(store::next_due(&self.db, intake.queue)?);
        }
        Ok(false)
    }

    fn hand_out(&self, taken: Vec<(i64, Vec<Taken>)>) {
        for (consumer, taken) in taken {
            let Some(intake) = self.consumers.get(&consumer) else { continue };
            for Taken { id, redelivered, content } in taken {
                let Content { exchange, routing_key, message, unreadable } = content;
                let receipt = Receipt::new(id.cast_unsigned(), self.acks.0.clone());
                let delivery = Delivery { message, exchange, routing_key, redelivered, unreadable, receipt };
                // There is a place for each, up to the prefetch. An error means that the consumer
                // was dropped; what it has is given back when we hear of that.
                let _ = intake.deliveries.try_send(Ok(delivery));
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
