//! A turn lets a guest that has been at it for more than a tick of the clock go on until the next
//! one. There are fewer turns than cores (where there are several), so that guests which never end
//! leave one core to all others, whose calls take far less than a tick. One that has had many turns goes on in the slow lane.
//!
//! The clock goes on while a guest waits for the host. One that has waited for something outside begins anew: it has not
//! computed meanwhile, and what it does next is as short as a call of its own. Other waiting counts as computing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::EPOCH_INTERVAL;

/// A turn ends with the guest's next tick, or after this, if it waits for the host meanwhile.
const TURN_MAX: Duration = Duration::from_millis(5);

/// The clock of the engine goes on while a guest waits for the outside; a shorter wait it does not notice.
const WAIT_NOTICED: Duration = EPOCH_INTERVAL;

/// Turns after which a call is a long one: some 20 ms of computing. Python begins, and answers, in two or three.
const TURNS_MAX: u32 = 20;

/// The turns of one engine.
#[derive(Clone, Debug)]
pub(super) struct CpuSlices {
    free: Arc<Semaphore>,
}

/// Where one guest stands. Its turn ends with it.
#[derive(Debug, Default)]
pub(super) struct CpuSlice {
    /// That it has met, one after the other.
    ticks: u32,
    held: Option<Held>,
    wants_background: Arc<AtomicBool>,
}

/// `None` when it is over.
type Held = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

impl CpuSlice {
    /// The guest gave up the processor for so long, to wait for something outside.
    pub(super) fn has_waited(&mut self, time: Duration) {
        if time >= WAIT_NOTICED {
            self.end();
            self.ticks = 0;
        }
    }

    /// Set once the call is to go on in the slow lane.
    pub(super) fn wants_background(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.wants_background)
    }

    fn end(&mut self) {
        if let Some(held) = self.held.take() {
            // The clock that runs beside it would hold it for longer.
            held.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// What a guest does at a tick.
pub(super) enum Tick<Wait> {
    /// Works on: it may have begun just before.
    GoOn,
    /// Lets others go first, once.
    GiveWay,
    /// Goes on when this has ended.
    Wait(Wait),
}

impl CpuSlices {
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { free: Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))) }
    }

    /// Ends this guest's turn. It has the next one when it has waited; first come, first served. A call
    /// that only happens to meet its first tick goes on: as long as it waited for others, its slot would be taken, and whoever
    /// waits for that would wait with it.
    pub(super) fn tick(&self, cpu_slice: &mut CpuSlice) -> Tick<impl Future<Output = ()> + Send + 'static> {
        cpu_slice.end();
        if cpu_slice.wants_background.load(Ordering::Relaxed) {
            return Tick::GiveWay;
        }
        cpu_slice.ticks += 1;
        if cpu_slice.ticks == 1 {
            return Tick::GoOn;
        }
        if cpu_slice.ticks > 1 + TURNS_MAX {
            cpu_slice.wants_background.store(true, Ordering::Relaxed);
            return Tick::GiveWay;
        }
        let (free, held) = (Arc::clone(&self.free), Held::default());
        cpu_slice.held = Some(Arc::clone(&held));
        Tick::Wait(async move {
            // It is never closed; if it were, the guest would go on without a turn.
            let permit = free.acquire_owned().await.ok();
            *held.lock().unwrap_or_else(PoisonError::into_inner) = permit;
            tokio::spawn(async move {
                tokio::time::sleep(TURN_MAX).await;
                held.lock().unwrap_or_else(PoisonError::into_inner).take();
            });
        })
    }
}

impl Drop for CpuSlice {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wait(tick: Tick<impl Future<Output = ()>>) {
        match tick {
            Tick::GoOn | Tick::GiveWay => panic!("it has been here before"),
            Tick::Wait(cpu_slice) => cpu_slice.await,
        }
    }

    /// The turns of a machine with two cores, and guests that have computed for a tick.
    fn two_cores<const GUESTS: usize>() -> (CpuSlices, [CpuSlice; GUESTS]) {
        let cpu_slices = CpuSlices { free: Arc::new(Semaphore::new(1)) };
        let mut guests = std::array::from_fn(|_| CpuSlice::default());
        for guest in &mut guests {
            assert!(matches!(cpu_slices.tick(guest), Tick::GoOn));
        }
        (cpu_slices, guests)
    }

    #[tokio::test]
    async fn a_turn_ends_with_the_next_tick_or_by_itself() {
        let (cpu_slices, [mut one, mut other]) = two_cores();
        wait(cpu_slices.tick(&mut one)).await;
        let mut waiting = Box::pin(wait(cpu_slices.tick(&mut other)));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        // Its next tick: it queues up behind the one that waits.
        let mut again = Box::pin(wait(cpu_slices.tick(&mut one)));
        assert!(futures_util::poll!(&mut again).is_pending());
        waiting.await;
        assert!(futures_util::poll!(&mut again).is_pending());
        // The other one never ticks.
        again.await;
    }

    #[tokio::test]
    async fn who_has_waited_for_the_outside_does_not_queue_up_behind_those_that_compute() {
        let (cpu_slices, [mut one, mut other]) = two_cores();
        wait(cpu_slices.tick(&mut one)).await;
        other.has_waited(WAIT_NOTICED / 2);
        assert!(matches!(cpu_slices.tick(&mut other), Tick::Wait(_)), "that was no wait");
        other.has_waited(WAIT_NOTICED);
        assert!(matches!(cpu_slices.tick(&mut other), Tick::GoOn));
        one.has_waited(WAIT_NOTICED);
        let mut waiting = Box::pin(wait(cpu_slices.tick(&mut other)));
        assert!(futures_util::poll!(&mut waiting).is_ready(), "and its turn ends with the wait");
    }

    #[tokio::test]
    async fn who_has_had_many_turns_in_a_row_goes_to_the_slow_lane() {
        let (cpu_slices, [mut one, mut other]) = two_cores();
        let wants_background = one.wants_background();
        for _ in 0..TURNS_MAX {
            wait(cpu_slices.tick(&mut one)).await;
        }
        // It may be one that waits again and again.
        other.has_waited(WAIT_NOTICED);
        for _ in 0..TURNS_MAX {
            assert!(matches!(cpu_slices.tick(&mut other), Tick::GoOn));
            other.has_waited(WAIT_NOTICED);
        }
        assert!(!wants_background.load(Ordering::Relaxed));
        assert!(matches!(cpu_slices.tick(&mut one), Tick::GiveWay));
        assert!(wants_background.load(Ordering::Relaxed));
        assert!(matches!(cpu_slices.tick(&mut one), Tick::GiveWay), "there it needs no turn");
        assert!(!other.wants_background().load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_turn_ends_with_its_guest() {
        let (cpu_slices, [mut one, mut other]) = two_cores();
        wait(cpu_slices.tick(&mut one)).await;
        drop(one);
        let mut waiting = Box::pin(wait(cpu_slices.tick(&mut other)));
        assert!(futures_util::poll!(&mut waiting).is_ready(), "at once");
    }
}
