//! Turns: after a break, a message that comes again is alone in hand for a while.
//!
//! All queues of a host share the turns of a session. A suspect waits until nothing else is in hand, and nothing else is
//! taken until it is settled or its time is up: a slow plugin only makes the others wait for a bounded time. Every wait
//! here has a bound, and all of them together have one for each session.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use broker::Delivery;
use tokio::sync::{Notify, OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::delivery::clock::now;
use crate::delivery::quarantine::fingerprint::Fingerprint;
use crate::delivery::quarantine::{Quarantine, SESSION_LONG, Verdict};

/// How long those that were in hand together at the last break are waited for: the likeliest goes first.
const TOGETHER_WAIT: Duration = Duration::from_secs(2);
/// Suspects are alone for so many times the longest turn, in all and within [`BUDGET_RENEWED`]. Those that come later
/// are not alone.
const BUDGET_TURNS: u32 = 120;
const BUDGET_RENEWED: Duration = Duration::from_mins(10);

/// The caution of one session.
pub(in crate::delivery) struct Caution {
    quarantine: Quarantine,
    session: u64,
    /// Not while nothing is suspected: then no message takes notice of any of this.
    is_on: AtomicBool,
    stop: CancellationToken,
    in_hand: watch::Sender<usize>,
    turn: Arc<tokio::sync::Mutex<()>>,
    together: Mutex<VecDeque<Fingerprint>>,
    together_changed: Notify,
    together_until: Instant,
    spent: Mutex<Spent>,
    /// Something of the host's own failed in this session, as the subject and verb of a sentence.
    failed: OnceLock<String>,
}

/// The time that suspects were alone for.
struct Spent {
    time: Duration,
    since: Instant,
}

/// Whether a message may be handled.
pub(in crate::delivery) enum Admission {
    Handle(Pass),
    /// It is to go to the dead letters as it is.
    SetAside(Pass, Verdict),
    /// The host stops: it is to be given back.
    NotNow,
}

/// A message in hand.
pub(in crate::delivery) struct Pass {
    caution: Arc<Caution>,
    suspect: Option<Fingerprint>,
    turn: Option<Turn>,
}

/// The time in which a suspect is alone.
struct Turn {
    _turn: OwnedMutexGuard<()>,
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

    /// Whether each message has to be admitted.
    pub(in crate::delivery) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Something of the host's own failed, which a message can cause.
    pub(in crate::delivery) fn host_failed(&self, what: &str) {
        // The first is the cause, later ones its effects.
        let _ = self.failed.set(what.to_owned());
    }

    pub(in crate::delivery) fn failed(&self) -> Option<String> {
        self.failed.get().cloned()
    }

    /// Goes on for as long as it is polled: notices that the session has lasted for long.
    pub(in crate::delivery) async fn watch_over(&self) -> std::convert::Infallible {
        tokio::time::sleep(SESSION_LONG).await;
        self.quarantine.change(self.session, |record| record.goes_on()).await;
        self.look_whether_over();
        std::future::pending().await
    }

    /// Waits for the turn of a message that came from this queue.
    pub(in crate::delivery) async fn admit(self: &Arc<Self>, queue: &str, delivery: &Delivery) -> Admission {
        let Delivery { message, exchange, routing_key, redelivered, .. } = delivery;
        let suspect = redelivered.then(|| Fingerprint::of(queue, exchange, routing_key, message));
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
            // Nothing is known of it, and it gets no turn of its own.
            self.look_whether_over();
            return Admission::Handle(Pass::new(self, None, None));
        };
        let (alone_max, conviction, needs_a_control) = self
            .quarantine
            .look(|record| (record.alone_max(), record.conviction(&suspect), record.needs_a_control(&suspect)));
        let began = Instant::now();
        let alone_max = if self.has_budget(alone_max) { alone_max } else { Duration::ZERO };
        if needs_a_control {
            // A session that ends now ends without it.
            tokio::time::sleep(alone_max).await;
        }
        let mut in_hand = self.in_hand.subscribe();
        // The sender is in `self`, so there is no error.
        let is_alone = timeout(alone_max, in_hand.wait_for(|count| *count == 0)).await.is_ok() && !alone_max.is_zero();
        let mut pass = Pass::new(self, Some(suspect), None);
        let is_set_aside = conviction.is_some();
        let take = move |record: &mut super::Record| record.take(suspect, is_alone, is_set_aside);
        if self.quarantine.change(self.session, take).await == Some(true) {
            pass.turn = Some(Turn { _turn: turn, began, until: Instant::now() + alone_max });
        }
        match conviction {
            Some(conviction) => Admission::SetAside(pass, Verdict::new(conviction, &suspect)),
            None => Admission::Handle(pass),
        }
    }

    /// Those that were in hand together at the last break are taken in the order of their likelihood, if they come soon.
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
            // It is over by then in any case.
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

impl Pass {
    fn new(caution: &Arc<Caution>, suspect: Option<Fingerprint>, turn: Option<Turn>) -> Self {
        caution.in_hand.send_modify(|count| *count += 1);
        Self { caution: Arc::clone(caution), suspect, turn }
    }

    /// Does what is to be done with the message. Once its time alone is over others are taken as well.
    pub(in crate::delivery) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Some(until) = self.turn.as_ref().map(|turn| turn.until) {
            if let Ok(done) = timeout_at(until, work.as_mut()).await {
                return done;
            }
            self.change(|record, suspect| record.accompany(suspect)).await;
            self.end_turn();
        }
        work.await
    }

    /// The message is settled.
    pub(in crate::delivery) async fn settled(mut self) {
        self.change(|record, suspect| record.settle(suspect)).await;
        self.end_turn();
    }

    /// The message is not handled, and will come again.
    pub(in crate::delivery) async fn given_back(mut self) {
        self.change(|record, suspect| record.give_back(suspect)).await;
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

impl Drop for Pass {
    /// Without a word before, the message stays on record as in hand: its session is ending, maybe because of it.
    fn drop(&mut self) {
        self.caution.in_hand.send_modify(|count| *count -= 1);
    }
}
