//! Holds a session with the broker, and opens another one when it is lost.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use broker::{Broker, BrokerError, BrokerUrl, ConnectError, ConnectOptions};
use config::HostConfig;
use delivery::{DeliveryStatus, Dispatcher, Ended, Opened, Registry, make_queues};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Time limit of one attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest pause between two attempts to connect.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause between two attempts to connect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(15);
/// A session that ends sooner than this counts as short, and makes the next one wait.
const SESSION_SHORT: Duration = Duration::from_secs(10);
/// How long the broker may take to close the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens sessions, trying for as long as it takes, and runs the dispatcher over them.
pub struct Sessions<'a> {
    url: BrokerUrl,
    config: &'a HostConfig,
    /// The plugins whose queues are needed.
    registry: &'a Registry,
    status: &'a DeliveryStatus,
    /// Whether a session has ever opened. From then on `broker_timeout` no longer applies.
    worked: bool,
    /// Warnings that were logged already.
    warned: Vec<String>,
}

impl<'a> Sessions<'a> {
    /// Creates the holder of sessions. `registry` has the plugins whose queues are needed.
    pub fn new(url: BrokerUrl, config: &'a HostConfig, registry: &'a Registry, status: &'a DeliveryStatus) -> Self {
        Self { url, config, registry, status, worked: false, warned: Vec::new() }
    }
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl Sessions<'_> {
    /// Holds one session after another, until `stop`. An error means that none could be opened.
    pub async fn hold(mut self, dispatcher: &Dispatcher, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut short_sessions = 0;
        loop {
            let Some(opened) = self.open(stop).await? else { return Ok(()) };
            let broker = opened.broker.clone();
            let started = Instant::now();
            match dispatcher.run(opened, stop).await {
                Ended::Lost(error) => {
                    short_sessions = if started.elapsed() < SESSION_SHORT { short_sessions + 1 } else { 0 };
                    let pause = pause_after(short_sessions);
                    self.status.away(error.to_string());
                    warn!("{error}; connecting again in {} ms", pause.as_millis());
                    // Ignore the result: the next `open` sees a stop by itself.
                    let _ = tokio::time::timeout(pause, stop.cancelled()).await;
                }
                Ended::Stopped { given_back } => {
                    // An unresponsive broker must not keep the host from stopping.
                    if tokio::time::timeout(CLOSE_TIMEOUT, broker.close()).await.is_err() {
                        warn!("the broker did not answer the good-bye");
                    }
                    if let count @ 1.. = dispatcher.duplicates.dropped() {
                        info!(count, "events that came twice were delivered once");
                    }
                    match given_back {
                        0 => info!("stopped: everything that was begun is done"),
                        count => {
                            warn!(
                                count,
                                "stopped: not all calls finished in time; their messages are back in the queue"
                            );
                        }
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Opens a session. Returns `None` if the host was asked to stop before that.
    async fn open(&mut self, stop: &CancellationToken) -> anyhow::Result<Option<Opened>> {
        let started = Instant::now();
        let mut said = String::new();
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(RECONNECT_PAUSE_MIN)
            .with_max_delay(RECONNECT_PAUSE_MAX)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            let opened = tokio::select! {
                () = stop.cancelled() => return Ok(None),
                opened = self.try_open() => opened,
            };
            let error = match opened {
                Ok(session) => {
                    self.worked = true;
                    return Ok(Some(session));
                }
                Err(error) => error.to_string(),
            };
            self.status.away(error.clone());
            let limit = self.config.broker_timeout.filter(|_| !self.worked);
            if let Some(limit) = limit.filter(|limit| started.elapsed() >= *limit) {
                anyhow::bail!("{error}; gave up after {} s (--broker-timeout)", limit.as_secs());
            }
            // Warn once for each kind of problem, not at every attempt.
            if error != said {
                warn!("{error}; trying again until it works");
                said = error;
            }
            let pause = pauses.next().unwrap_or(RECONNECT_PAUSE_MAX);
            let pause = limit.map_or(pause, |limit| pause.min(limit.saturating_sub(started.elapsed())));
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn try_open(&mut self) -> Result<Opened, OpenError> {
        let options = ConnectOptions { name: "notify-host".to_owned(), timeout: CONNECT_TIMEOUT };
        let broker = Broker::connect(&self.url, &options).await?;
        let source = &self.config.source;
        let mut warnings = broker.declare_source(source).await?;
        let runners = self.registry.runners();
        let names: Vec<_> = runners.iter().map(|runner| &*runner.name).collect();
        // Ignore refused queues here. The session keeps trying to declare them.
        let made = make_queues(&broker, &source.names, &names).await?;
        warnings.extend(made.warnings);
        for warning in warnings {
            let warning = warning.to_string();
            if !self.warned.contains(&warning) {
                warn!("{warning}");
                self.warned.push(warning);
            }
        }
        let consumer = if made.there.is_empty() {
            None
        } else {
            Some(broker.consume(source.names.source(), self.config.prefetch).await?)
        };
        let declared = made.there.into_iter().map(str::to_owned).collect();
        Ok(Opened { broker, consumer, declared })
    }
}

/// Returns the pause before the next session. A message that breaks the session is offered again on the next
/// one, and that must not become a hot loop.
fn pause_after(short_sessions: u32) -> Duration {
    let Some(doublings) = short_sessions.checked_sub(1) else { return Duration::ZERO };
    // Cap the exponent, or the shift would overflow.
    RECONNECT_PAUSE_MIN.saturating_mul(1 << doublings.min(10)).min(RECONNECT_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_end_at_once_are_opened_ever_more_slowly() {
        let pauses: Vec<_> = (0..9).map(|count| pause_after(count).as_millis()).collect();
        assert_eq!(pauses, [0, 250, 500, 1000, 2000, 4000, 8000, 15000, 15000]);
        assert_eq!(pause_after(u32::MAX), RECONNECT_PAUSE_MAX);
    }
}
