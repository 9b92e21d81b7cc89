//! Where calls that overlap pass one after the other, in the order in which they began.
//!
//! A channel alone does not keep that order. A sender that had to wait for room, and is woken, is
//! overtaken by one that just comes and finds room; and tokio holds up whoever has done much in
//! one go, and wakes the last of these first.

use tokio::sync::Mutex;
use tokio::task::unconstrained;

#[derive(Debug, Default)]
pub(crate) struct Turnstile(Mutex<()>);

impl Turnstile {
    /// Does it when its turn has come. A turn is taken when this is first polled, and given up when
    /// it is dropped.
    pub(crate) async fn pass<T>(&self, enter: impl Future<Output = T>) -> T {
        unconstrained(async {
            // Fair: who waits longest is next.
            let _turn = self.0.lock().await;
            enter.await
        })
        .await
    }
}
