//! The slow lane is for calls that compute for long: threads of their own, which get the processor when nobody else
//! wants it, and a tenth of a core when somebody does. Other calls, the broker's client and whatever else runs on the machine do not
//! wait for them.
//!
//! A call begins outside. Only the polling of it moves; what it asks of the host's runtime stays there.

use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::thread;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, poll_fn};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

/// How much it gives way, as by `nice`: the scheduler gives a thread a tenth of what it gives one that is as much less nice
/// (<https://man7.org/linux/man-pages/man7/sched.7.html>).
const NICENESS: i32 = 10;
/// The system knows no more.
#[cfg(target_os = "linux")]
const NICENESS_MAX: i32 = 19;

/// Its threads are started when they are first needed.
#[derive(Debug, Default)]
pub(super) struct BackgroundRuntime {
    /// `None`: the system has no threads for it.
    runtime: OnceLock<Option<Runtime>>,
}

impl BackgroundRuntime {
    /// Runs a call, in the lane from when `is_long` says so and the call gives way. An error means that the lane has ended.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        mut call: BoxFuture<'static, T>,
        is_long: impl Fn() -> bool,
    ) -> Result<T, JoinError> {
        let ended = poll_fn(|context| match call.poll_unpin(context) {
            Poll::Ready(answer) => Poll::Ready(Ok(answer)),
            Poll::Pending if is_long() => {
                self.runtime().map_or(Poll::Pending, |background| Poll::Ready(Err(background)))
            }
            Poll::Pending => Poll::Pending,
        });
        match ended.await {
            Ok(answer) => Ok(answer),
            Err(background) => {
                AbortOnDropHandle::new(background.spawn(AtHome { home: Handle::current(), call: Some(call) })).await
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        matches!(self.runtime.get(), Some(Some(_)))
    }

    fn runtime(&self) -> Option<&Runtime> {
        let start = || {
            // As many as leave one core to all others, where there are several.
            let threads = thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).max(1);
            Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name("long-calls")
                .on_thread_start(give_way)
                .build()
                .inspect_err(|error| {
                    warn!("calls that compute for long run among the others: no threads for them: {error}");
                })
                .ok()
        };
        self.runtime.get_or_init(start).as_ref()
    }
}

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        if let Some(Some(runtime)) = self.runtime.take() {
            // Its last owner may be a task, which must not wait.
            runtime.shutdown_background();
        }
    }
}

/// Of the calling thread alone. It begins as nice as the host, which need not have 0.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        let nicer = |own: i32| setpriority_process(None, (own + NICENESS).min(NICENESS_MAX));
        if let Err(error) = getpriority_process(None).and_then(nicer) {
            warn!("calls that compute for long do not give way to others: {error}");
        }
    }
}

/// A call whose timers and tasks are those of another runtime than the one that polls it.
struct AtHome<T> {
    home: Handle,
    /// `None` once it has ended.
    call: Option<BoxFuture<'static, T>>,
}

impl<T> Future for AtHome<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        let _home = this.home.enter();
        let Some(call) = &mut this.call else { return Poll::Pending };
        let answer = std::task::ready!(call.poll_unpin(context));
        this.call = None;
        Poll::Ready(answer)
    }
}

impl<T> Drop for AtHome<T> {
    fn drop(&mut self) {
        // What it has open may be handed to a task, to be used again.
        let _home = self.home.enter();
        self.call = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    fn thread_name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn only_a_long_call_goes_there_and_finds_the_runtime_that_it_came_from() {
        let background = BackgroundRuntime::default();
        let short = async {
            tokio::task::yield_now().await;
            thread_name()
        };
        assert_ne!(background.run(short.boxed(), || false).await.unwrap(), "long-calls");
        assert!(!background.is_open(), "nobody needed it");

        let own = || rustix::process::getpriority_process(None).unwrap();
        if cfg!(target_os = "linux") {
            // As the host has it that was started by `nice`; here, of this test's thread alone.
            rustix::process::setpriority_process(None, own() + 3).unwrap();
        }
        let (home, before) = (Handle::current().id(), own());
        let long = async move {
            assert_ne!(thread_name(), "long-calls");
            tokio::task::yield_now().await;
            assert_eq!(Handle::current().id(), home);
            // By a timer that the lane's runtime does not have.
            tokio::time::sleep(Duration::from_millis(1)).await;
            (thread_name(), own())
        };
        let nicer = if cfg!(target_os = "linux") { (before + NICENESS).min(19) } else { before };
        assert_eq!(background.run(long.boxed(), || true).await.unwrap(), ("long-calls".to_owned(), nicer));
        assert_eq!(own(), before, "only its own threads");
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_any_more_ends_there_too() {
        struct Ends(std::sync::Arc<AtomicBool>, tokio::runtime::Id);
        impl Drop for Ends {
            fn drop(&mut self) {
                assert_eq!(Handle::current().id(), self.1, "it finds the runtime that it came from");
                self.0.store(true, Ordering::Release);
            }
        }
        let (background, ended) = (BackgroundRuntime::default(), std::sync::Arc::new(AtomicBool::new(false)));
        let guard = Ends(std::sync::Arc::clone(&ended), Handle::current().id());
        let endless = async move {
            let _guard = guard;
            loop {
                tokio::task::yield_now().await;
            }
        };
        let run = background.run::<()>(endless.boxed(), || true);
        assert!(tokio::time::timeout(Duration::from_millis(20), run).await.is_err());
        let limit = tokio::time::Instant::now() + Duration::from_secs(10);
        while !ended.load(Ordering::Acquire) {
            assert!(tokio::time::Instant::now() < limit, "it goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
