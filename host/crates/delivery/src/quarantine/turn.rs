//! Turns: after a break, each message that is offered again is handled alone for a while.
//!
//! All queues of a host share the turns of a session. A suspect waits until nothing else is in hand. Nothing
//! else is taken until it is settled or its time is up, so a slow plugin delays the others only for a bounded
//! time. Every wait here is bounded, and so is their sum within a session.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use broker::Delivery;
use event::clock::now;
use tokio::sync::{Notify, OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::quarantine::fingerprint::Fingerprint;
use crate::quarantine::{Quarantine, QuarantineVerdict, SESSION_LONG};

/// How long to wait for the messages that were in hand together at the last break. The likeliest goes first.
const TOGETHER_WAIT: Duration = Duration::from_secs(2);
/// Maximum time that suspects are alone, as a multiple of the longest turn, within each [`BUDGET_RENEWED`].
/// Later suspects are not alone.
const BUDGET_TURNS: u32 = 60;
/// Period of the budget for time alone.
const BUDGET_RENEWED: Duration = Duration::from_mins(10);

/// Admits the messages of one session, one suspect at a time.
pub(crate) struct Caution {
    quarantine: Quarantine,
    session: u64,
    /// Off while nothing is suspected. Messages then skip all of this.
    is_on: AtomicBool,
    stop: CancellationToken,
    in_hand: watch::Sender<usize>,
    turn: Arc<tokio::sync::Mutex<()>>,
    together: Mutex<VecDeque<Fingerprint>>,
    together_changed: Notify,
    together_until: Instant,
    spent: Mutex<Spent>,
    /// The first internal failure of the host in this session, as the subject and verb of a sentence.
    failed: OnceLock<String>,
}

/// Time during which suspects were alone.
struct Spent {
    time: Duration,
    since: Instant,
}

/// Whether a message may be handled.
pub(crate) enum Admission {
    Handle(AdmittedMessage),
    /// The message goes to the dead letters as it is.
    SetAside(AdmittedMessage, QuarantineVerdict),
    /// The host is stopping, so the message goes back to the queue.
    NotNow,
}

/// A message in hand.
pub(crate) struct AdmittedMessage {
    caution: Arc<Caution>,
    suspect: Option<Fingerprint>,
    turn: Option<SuspectTurn>,
}

/// The period in which a suspect is alone.
struct SuspectTurn {
    _alone: OwnedMutexGuard<()>,
    began: Instant,
    until: Instant,
}

impl Caution {
    pub(super) fn new(
        quarantine: Quarantine,
        session: u64,
        is_on: bool,
        together: &[Fingerprint],
        stop: CancellationToken,
    ) -> Self {
        Self {
            quarantine,
            session,
            is_on: AtomicBool::new(is_on),
            stop,
            in_hand: watch::Sender::new(0),
            turn: Arc::default(),
            together: Mutex::new(together.iter().copied().collect()),
            together_changed: Notify::new(),
            together_until: Instant::now() + TOGETHER_WAIT,
            spent: Mutex::new(Spent { time: Duration::ZERO, since: Instant::now() }),
            failed: OnceLock::new(),
        }
    }

    /// Returns whether each message has to be admitted.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Records an internal failure of the host that a message can cause.
    pub(crate) fn host_failed(&self, what: &str) {
        // The first failure is the cause. Later ones are its effects.
        let _ = self.failed.set(what.to_owned());
    }

    pub(crate) fn failed(&self) -> Option<String> {
        self.failed.get().cloned()
    }

    /// Notes when the session has lasted long enough to end a series of breaks. Runs for as long as it is
    /// polled.
    pub(crate) async fn watch_over(&self) -> std::convert::Infallible {
        tokio::time::sleep(SESSION_LONG).await;
        self.quarantine.change(self.session, super::Record::goes_on).await;
        self.look_whether_over();
        std::future::pending().await
    }

    /// Waits until a message from this queue may be handled.
    pub(crate) async fn admit(self: &Arc<Self>, queue: &str, delivery: &Delivery) -> Admission {
        let Delivery { message, exchange, routing_key, redelivered, .. } = delivery;
        let suspect = redelivered.then(|| Fingerprint::of(queue, exchange, routing_key, message));
        self.take_unless_stopped(suspect).await
    }

    async fn take_unless_stopped(self: &Arc<Self>, suspect: Option<Fingerprint>) -> Admission {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Admission::NotNow,
            admission = self.take(suspect) => admission,
        }
    }

    async fn take(self: &Arc<Self>, suspect: Option<Fingerprint>) -> Admission {
        self.let_the_likeliest_go_first(suspect).await;
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let Some(suspect) = suspect else {
            // The message was not offered before, so it is no suspect and gets no turn.
            self.look_whether_over();
            return Admission::Handle(AdmittedMessage::new(self, None, None));
        };
        let (alone_max, conviction, needs_a_control) = self
            .quarantine
            .look(|record| (record.alone_max(), record.conviction(&suspect), record.needs_a_control(&suspect)));
        let began = Instant::now();
        let alone_max = if self.has_budget(alone_max) { alone_max } else { Duration::ZERO };
        if needs_a_control {
            // A control run: a session that ends during this wait ends without the message.
            tokio::time::sleep(alone_max).await;
        }
        let mut in_hand = self.in_hand.subscribe();
        // Cannot fail: `self` owns the sender.
        let is_alone = timeout(alone_max, in_hand.wait_for(|count| *count == 0)).await.is_ok() && !alone_max.is_zero();
        let mut admitted = AdmittedMessage::new(self, Some(suspect), None);
        let is_set_aside = conviction.is_some();
        let take = move |record: &mut super::Record| record.take(suspect, is_alone, is_set_aside);
        if self.quarantine.change(self.session, take).await == Some(true) {
            admitted.turn = Some(SuspectTurn { _alone: turn, began, until: Instant::now() + alone_max });
        }
        match conviction {
            Some(conviction) => Admission::SetAside(admitted, QuarantineVerdict::new(conviction, &suspect)),
            None => Admission::Handle(admitted),
        }
    }

    /// Lets the messages of the last break go first, the likeliest ahead, if they arrive soon.
    async fn let_the_likeliest_go_first(&self, suspect: Option<Fingerprint>) {
        loop {
            let mut changed = pin!(self.together_changed.notified());
            changed.as_mut().enable();
            {
                let mut together = self.together.lock().unwrap_or_else(PoisonError::into_inner);
                if Instant::now() >= self.together_until {
                    together.clear();
                }
                if together.is_empty() {
                    return;
                }
                if together.front().copied() == suspect {
                    together.pop_front();
                    break;
                }
            }
            // A timeout needs no handling: the list is cleared then.
            let _ = timeout_at(self.together_until, changed).await;
        }
        self.together_changed.notify_waiters();
    }

    fn has_budget(&self, alone_max: Duration) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.since.elapsed() >= BUDGET_RENEWED {
            *spent = Spent { time: Duration::ZERO, since: Instant::now() };
        }
        spent.time < alone_max.saturating_mul(BUDGET_TURNS)
    }

    fn spend(&self, time: Duration) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.time = spent.time.saturating_add(time);
    }

    fn look_whether_over(&self) {
        if self.is_on() && !self.quarantine.look(|record| record.is_cautious(now())) {
            self.is_on.store(false, Ordering::Relaxed);
            info!("no message is suspected of breaking sessions any more");
        }
    }
}

impl AdmittedMessage {
    fn new(caution: &Arc<Caution>, suspect: Option<Fingerprint>, turn: Option<SuspectTurn>) -> Self {
        caution.in_hand.send_modify(|count| *count += 1);
        Self { caution: Arc::clone(caution), suspect, turn }
    }

    /// Runs the work on the message. Once its time alone is up, other messages are taken as well.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Some(until) = self.turn.as_ref().map(|turn| turn.until) {
            if let Ok(done) = timeout_at(until, work.as_mut()).await {
                return done;
            }
            self.change(super::Record::accompany).await;
            self.end_turn();
        }
        work.await
    }

    /// Records that the message is settled.
    pub(crate) async fn settled(mut self) {
        self.change(super::Record::settle).await;
        self.end_turn();
    }

    /// Records that the message was not handled and will be offered again.
    pub(crate) async fn given_back(mut self) {
        self.change(super::Record::give_back).await;
        self.end_turn();
    }

    async fn change(&self, change: impl FnOnce(&mut super::Record, &Fingerprint) + Send + 'static) {
        if let Some(suspect) = self.suspect {
            self.caution.quarantine.change(self.caution.session, move |record| change(record, &suspect)).await;
        }
    }

    fn end_turn(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.caution.spend(turn.began.elapsed());
        }
    }
}

impl Drop for AdmittedMessage {
    /// Leaves the message on record as in hand, unless it was settled or given back: its session is ending,
    /// maybe because of it.
    fn drop(&mut self) {
        self.caution.in_hand.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caution(quarantine: &Quarantine) -> Arc<Caution> {
        quarantine.begin(CancellationToken::new())
    }

    /// Returns the quarantine of a host that a message may have broken.
    fn suspicious() -> Quarantine {
        let quarantine = Quarantine::open(None);
        drop(caution(&quarantine));
        quarantine.lost(Some("a test broke it".to_owned()));
        quarantine
    }

    #[expect(clippy::unnecessary_wraps, reason = "a suspect, as `take` wants one")]
    fn message(number: u8) -> Option<Fingerprint> {
        Some(Fingerprint::of_number(number))
    }

    async fn handle(caution: &Arc<Caution>, suspect: Option<Fingerprint>) -> AdmittedMessage {
        match caution.take(suspect).await {
            Admission::Handle(admitted) => admitted,
            Admission::SetAside(..) | Admission::NotNow => panic!("not to be handled"),
        }
    }

    /// Waits long enough for everything that does not have to wait.
    async fn is_waiting<T>(waiting: &mut (impl Future<Output = T> + Unpin)) -> bool {
        timeout(Duration::from_millis(50), waiting).await.is_err()
    }

    #[tokio::test]
    async fn an_ordinary_session_takes_no_notice() {
        let quarantine = Quarantine::open(None);
        assert!(!caution(&quarantine).is_on());
        quarantine.lost(None);
        assert!(!caution(&quarantine).is_on(), "a connection that is cut is no reason");
        assert!(caution(&suspicious()).is_on());
    }

    #[tokio::test]
    async fn a_suspect_is_alone_until_it_is_settled() {
        let caution = caution(&suspicious());
        let first = handle(&caution, message(1)).await;
        assert!(first.turn.is_some());
        let mut second = pin!(handle(&caution, message(2)));
        let mut ordinary = pin!(handle(&caution, None));
        assert!(is_waiting(&mut second).await && is_waiting(&mut ordinary).await);
        first.settled().await;
        let second = second.await;
        assert!(second.turn.is_some() && is_waiting(&mut ordinary).await);
        second.given_back().await;
        let ordinary = ordinary.await;
        // A suspect waits for messages in hand, but not forever.
        let mut third = pin!(handle(&caution, message(3)));
        assert!(is_waiting(&mut third).await);
        let third = third.await;
        assert!(third.turn.is_none(), "it is not alone");
        drop((ordinary, third));
    }

    #[tokio::test]
    async fn one_that_takes_long_is_joined_by_the_others_and_not_convicted() {
        let quarantine = suspicious();
        let caution = caution(&quarantine);
        let mut slow = handle(&caution, message(1)).await;
        let work = slow.during(std::future::pending::<()>());
        let others = handle(&caution, None);
        tokio::select! {
            () = work => {}
            other = others => assert!(other.turn.is_none()),
        }
        quarantine.lost(Some("a test broke it".to_owned()));
        assert_eq!(quarantine.look(|record| record.conviction(&Fingerprint::of_number(1))), None);
    }

    #[tokio::test]
    async fn who_was_alone_when_the_session_broke_is_set_aside_on_the_next() {
        let quarantine = suspicious();
        let broken = caution(&quarantine);
        let alone = handle(&broken, message(1)).await;
        quarantine.lost(Some("a test broke it".to_owned()));
        // Leftovers of the old session do not count in the next one.
        let next = caution(&quarantine);
        alone.settled().await;
        let Admission::SetAside(admitted, verdict) = next.take(message(1)).await else { panic!("handled again") };
        assert_eq!(verdict.fault.code, "quarantined");
        assert!(verdict.fault.reason.contains("a test broke it; it was not handled again"), "{}", verdict.fault.reason);
        admitted.settled().await;
        drop(handle(&next, message(1)).await);
    }

    #[tokio::test]
    async fn those_that_were_in_hand_together_are_taken_last_first() {
        let quarantine = suspicious();
        let broken = caution(&quarantine);
        // Each message is joined by the next one.
        let mut kept = Vec::new();
        for number in 1..=3 {
            let mut admitted = handle(&broken, message(number)).await;
            if admitted.turn.is_some() {
                let work = admitted.during(std::future::pending::<()>());
                assert!(timeout(Duration::from_secs(1), work).await.is_err());
            }
            kept.push(admitted);
        }
        quarantine.lost(Some("a test broke it".to_owned()));
        let next = caution(&quarantine);
        let mut first = pin!(handle(&next, message(1)));
        let mut stranger = pin!(handle(&next, None));
        assert!(is_waiting(&mut first).await && is_waiting(&mut stranger).await);
        handle(&next, message(3)).await.settled().await;
        assert!(is_waiting(&mut first).await && is_waiting(&mut stranger).await);
        handle(&next, message(2)).await.settled().await;
        first.await.settled().await;
        drop(stranger.await);
    }

    #[tokio::test]
    async fn those_that_do_not_come_are_not_waited_for() {
        let quarantine = suspicious();
        let broken = caution(&quarantine);
        std::mem::forget(handle(&broken, message(1)).await);
        quarantine.lost(Some("a test broke it".to_owned()));
        let next = caution(&quarantine);
        let began = Instant::now();
        drop(handle(&next, message(2)).await);
        assert!(began.elapsed() < TOGETHER_WAIT * 2, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_session_gives_a_bounded_time_to_suspects() {
        let caution = caution(&suspicious());
        caution.spend(Duration::from_mins(2));
        let admitted = handle(&caution, message(1)).await;
        assert!(admitted.turn.is_none());
        drop(handle(&caution, None).await);
    }

    #[tokio::test]
    async fn nothing_waits_when_the_host_stops() {
        let stop = CancellationToken::new();
        let caution = suspicious().begin(stop.clone());
        let _alone = handle(&caution, message(1)).await;
        let mut waiting = pin!(caution.take_unless_stopped(message(2)));
        assert!(is_waiting(&mut waiting).await);
        stop.cancel();
        assert!(matches!(waiting.await, Admission::NotNow));
    }
}
