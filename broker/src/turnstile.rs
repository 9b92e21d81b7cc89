//! Lets overlapping calls pass one by one, in the order in which they began.
//!
//! A channel alone does not keep this order. A sender that waits for space can be overtaken, when
//! it is woken, by one that has just arrived and finds space. Tokio's cooperative budget also
//! suspends a task after a burst of work; of several suspended tasks, it wakes the last one first.

use tokio::sync::Mutex;
use tokio::task::unconstrained;

#[derive(Debug, Default)]
pub(crate) struct Turnstile(Mutex<()>);

impl Turnstile {
    /// Runs the future when its turn comes. The turn is taken when this future is first polled, and
    /// given up when it is dropped.
    pub(crate) async fn pass<T>(&self, enter: impl Future<Output = T>) -> T {
        unconstrained(async {
            // The mutex is fair: the longest waiter is next.
            let _turn = self.0.lock().await;
            enter.await
        })
        .await
    }
}
