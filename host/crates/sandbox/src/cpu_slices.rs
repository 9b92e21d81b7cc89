//! A CPU slice lets a guest that has computed for more than one tick of the engine's clock continue until the next
//! tick. There are fewer slices than cores (where there are several), so endless guests leave one core to all others,
//! whose calls take far less than a tick. A guest that has used many slices moves to the background runtime.
//!
//! The clock goes on while a guest waits for the host. A guest that has waited for something outside starts over: it
//! did not compute meanwhile, and its next work is as short as a new call. Any other waiting counts as computing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum length of a slice. It usually ends with the guest's next tick, unless the guest waits for the host.
const SLICE_MAX: Duration = Duration::from_millis(5);

/// How often a guest that computes is interrupted.
pub(crate) const EPOCH_INTERVAL: Duration = Duration::from_millis(1);
/// Minimum time of a wait that counts. The engine's clock does not notice a shorter one.
const WAIT_NOTICED: Duration = EPOCH_INTERVAL;

/// Number of slices after which a call counts as long: some 20 ms of computing. Python starts up, and answers, in two
/// or three.
const SLICES_MAX: u32 = 20;

/// The CPU slices of one engine.
#[derive(Clone, Debug)]
pub(super) struct CpuSlices {
    free: Arc<Semaphore>,
}

/// The scheduling state of one guest. Dropping it ends the guest's slice.
#[derive(Debug, Default)]
pub(super) struct CpuSlice {
    /// Consecutive ticks that the guest has met.
    ticks: u32,
    held: Option<HeldPermit>,
    wants_background: Arc<AtomicBool>,
}

/// The permit of a slice; `None` when the slice is over.
type HeldPermit = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

impl CpuSlice {
    /// Records that the guest gave up the processor for this long, to wait for something outside.
    pub(super) fn has_waited(&mut self, time: Duration) {
        if time >= WAIT_NOTICED {
            self.end();
            self.ticks = 0;
        }
    }

    /// Returns a flag that is set once the call should move to the background runtime.
    pub(super) fn wants_background(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.wants_background)
    }

    fn end(&mut self) {
        if let Some(held) = self.held.take() {
            // Release the permit now. The timer task would keep it for longer.
            held.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// The decision at a tick of the clock.
pub(super) enum Tick<Wait> {
    /// Continue: the call may have begun just before the tick.
    GoOn,
    /// Yield once to others.
    GiveWay,
    /// Continue when this future has ended.
    Wait(Wait),
}

impl CpuSlices {
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { free: Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))) }
    }

    /// Ends this guest's slice, and decides how it gets the next one; first come, first served. A call at its first
    /// tick continues: while it waited for others, its slot would stay taken, and whoever waits for the slot would
    /// wait as well.
    pub(super) fn tick(&self, cpu_slice: &mut CpuSlice) -> Tick<impl Future<Output = ()> + Send + 'static> {
        cpu_slice.end();
        if cpu_slice.wants_background.load(Ordering::Relaxed) {
            return Tick::GiveWay;
        }
        cpu_slice.ticks += 1;
        if cpu_slice.ticks == 1 {
            return Tick::GoOn;
        }
        if cpu_slice.ticks > 1 + SLICES_MAX {
            cpu_slice.wants_background.store(true, Ordering::Relaxed);
            return Tick::GiveWay;
        }
        let (free, held) = (Arc::clone(&self.free), HeldPermit::default());
        cpu_slice.held = Some(Arc::clone(&held));
        Tick::Wait(async move {
            // The semaphore is never closed. If it were, the guest would continue without a slice.
            let permit = free.acquire_owned().await.ok();
            *held.lock().unwrap_or_else(PoisonError::into_inner) = permit;
            tokio::spawn(async move {
                tokio::time::sleep(SLICE_MAX).await;
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

    /// Returns the CPU slices of a machine with two cores, and guests that have computed for a tick.
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
        // At its next tick, it queues behind the one that waits.
        let mut again = Box::pin(wait(cpu_slices.tick(&mut one)));
        assert!(futures_util::poll!(&mut again).is_pending());
        waiting.await;
        assert!(futures_util::poll!(&mut again).is_pending());
        // The other guest never ticks, so its slice ends by time.
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
        for _ in 0..SLICES_MAX {
            wait(cpu_slices.tick(&mut one)).await;
        }
        // This guest waits again and again.
        other.has_waited(WAIT_NOTICED);
        for _ in 0..SLICES_MAX {
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
