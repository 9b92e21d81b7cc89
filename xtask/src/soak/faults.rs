//! Faults during a soak: the broker is killed and comes back, the receiver of webhooks fails and hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use testbed::rabbitmq::Node;
use testbed::receiver::{Answer, Receiver, Reply};

use crate::soak::pause;

/// Maximum length of a round of faults. Each fault comes often in a long soak and at least twice in a short one.
const ROUND_MAX: Duration = Duration::from_mins(2);
const ROUNDS_MIN: u32 = 2;

const WELL: u8 = 0;
const ERRS: u8 = 1;
const HANGS: u8 = 2;

/// The receiver of the webhooks.
pub(super) struct Outlet {
    receiver: Receiver,
    mood: Arc<AtomicU8>,
}

impl Outlet {
    pub(super) fn open() -> Self {
        let mood = Arc::new(AtomicU8::new(WELL));
        let asked = Arc::clone(&mood);
        let receiver = Receiver::start(move |_| match asked.load(Ordering::Relaxed) {
            ERRS => Reply::Answer(Answer::status(500)),
            HANGS => Reply::Hang,
            _ => Reply::Answer(Answer::status(204)),
        });
        Self { receiver, mood }
    }

    pub(super) fn port(&self) -> u16 {
        self.receiver.port()
    }

    fn is(&self, mood: u8) {
        self.mood.store(mood, Ordering::Relaxed);
        // Hanging connections would otherwise hang to the end.
        self.receiver.drop_connections();
    }

    pub(super) fn mend(&self) {
        self.is(WELL);
    }
}

pub(super) struct Faults<'f> {
    node: &'f Node,
    outlet: &'f Outlet,
    round: Duration,
    broker_is_away: AtomicBool,
    restarts: AtomicUsize,
    bad_times: AtomicUsize,
}

impl<'f> Faults<'f> {
    pub(super) fn new(node: &'f Node, outlet: &'f Outlet, time: Duration) -> Self {
        Self {
            node,
            outlet,
            round: ROUND_MAX.min(time / ROUNDS_MIN),
            broker_is_away: AtomicBool::default(),
            restarts: AtomicUsize::default(),
            bad_times: AtomicUsize::default(),
        }
    }

    pub(super) fn run(&self, stop: &AtomicBool) {
        let part = self.round / 12;
        loop {
            for mood in [ERRS, HANGS] {
                if pause(part * 3, stop) {
                    return;
                }
                self.outlet.is(mood);
                self.bad_times.fetch_add(1, Ordering::Relaxed);
                let stopped = pause(part, stop);
                self.outlet.mend();
                if stopped {
                    return;
                }
            }
            if pause(part * 2, stop) {
                return;
            }
            self.broker_is_away.store(true, Ordering::Relaxed);
            self.node.restart();
            self.broker_is_away.store(false, Ordering::Relaxed);
            self.restarts.fetch_add(1, Ordering::Relaxed);
            if pause(part * 2, stop) {
                return;
            }
        }
    }

    /// Returns the current fault for the table.
    pub(super) fn now(&self) -> &'static str {
        match (self.broker_is_away.load(Ordering::Relaxed), self.outlet.mood.load(Ordering::Relaxed)) {
            (true, _) => "the broker is away",
            (false, ERRS) => "the receiver errs",
            (false, HANGS) => "the receiver hangs",
            (false, _) => "",
        }
    }

    pub(super) fn restarts(&self) -> usize {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(super) fn bad_times(&self) -> usize {
        self.bad_times.load(Ordering::Relaxed)
    }
}
