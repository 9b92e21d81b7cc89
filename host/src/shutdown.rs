//! Shutdown: the first signal asks the host to stop, the second ends it at once.

use std::process;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::exit;

/// Returns a token that the first SIGINT or SIGTERM cancels. `last` runs before the second one ends the process.
pub(crate) fn on_signals(last: impl FnOnce() + Send + 'static) -> std::io::Result<CancellationToken> {
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    // Not joined: the task lives as long as the process, which it may end.
    tokio::spawn(async move {
        let name = signals.next().await;
        info!("{name}: stopping; once more to end at once");
        asked.cancel();
        let name = signals.next().await;
        warn!("{name} again: ending at once; what is in flight comes again");
        last();
        process::exit(exit::INTERRUPTED);
    });
    Ok(stop)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        // Without the handler no signal can arrive.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
