//! The background runtime runs calls that compute for long. Its own low-priority threads get the processor when
//! nobody else wants it, and a tenth of a core otherwise. Other calls, the broker's client and everything else on the
//! machine do not wait for them.
//!
//! A call begins on the host's runtime. Only its polling moves; its timers and tasks stay there.

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

/// Added to the threads' nice value. The scheduler gives a thread a tenth of the time of one that is this much less
/// nice (<https://man7.org/linux/man-pages/man7/sched.7.html>).
const NICENESS: i32 = 10;
/// The highest nice value on Linux.
#[cfg(target_os = "linux")]
const NICENESS_MAX: i32 = 19;

/// The threads are started on first use.
#[derive(Debug, Default)]
pub(super) struct BackgroundRuntime {
    /// `None` if the system has no threads for it.
    runtime: OnceLock<Option<Runtime>>,
}

impl BackgroundRuntime {
    /// Runs a call, and moves it to the background runtime when it yields and `is_long` is true. An error means that
    /// the runtime has ended.
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
            // Leave one core to everything else, where there are several.
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
            // The last owner may be a task, which must not block.
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of the calling thread only. It starts from the host's nice value, which need not be 0.
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

/// A call whose timers and tasks belong to another runtime than the one that polls it.
struct AtHome<T> {
    home: Handle,
    /// `None` once the call has ended.
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
        // Dropping the call may hand open connections to a task for reuse, so it needs its own runtime.
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
            // Simulate a host started by `nice`. This changes only the test's thread.
            rustix::process::setpriority_process(None, own() + 3).unwrap();
        }
        let (home, before) = (Handle::current().id(), own());
        let long = async move {
            assert_ne!(thread_name(), "long-calls");
            tokio::task::yield_now().await;
            assert_eq!(Handle::current().id(), home);
            // This needs a timer, which the background runtime lacks.
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
