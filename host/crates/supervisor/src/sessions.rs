//! The sessions with the broker, one after another: when one is lost, another is opened.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use broker::{Broker, BrokerError, BrokerUrl, ConnectError, ConnectOptions};
use config::HostConfig;
use delivery::{DeliveryStatus, Dispatcher, Ended, Opened, Registry, make_queues};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// One try to reach the broker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two of them.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(250);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(15);
/// A session that ends sooner did no good, and the next one waits.
const SESSION_SHORT: Duration = Duration::from_secs(10);
/// Of saying good-bye to the broker.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens sessions, for as long as it takes, and works with them.
pub struct Sessions<'a> {
    url: BrokerUrl,
    config: &'a HostConfig,
    /// Of the plugins whose queues are needed.
    registry: &'a Registry,
    status: &'a DeliveryStatus,
    /// There was one that could consume.
    worked: bool,
    /// What has been said already.
    warned: Vec<String>,
}

impl<'a> Sessions<'a> {
    /// `registry`: of the plugins whose queues are needed.
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
    /// One session after another, until `stop`. An error means that there never was one.
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
                    // What is asked for meanwhile is seen by the next `open`.
                    let _ = tokio::time::timeout(pause, stop.cancelled()).await;
                }
                Ended::Stopped { given_back } => {
                    // A broker that does not answer must not keep the host from stopping.
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

    /// `None`: asked to stop before there was one.
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
            // Once for each kind of trouble, not at every try.
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
        // The session goes on trying to make what is refused.
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

/// A message that breaks the session comes again on the next one: that must not become a hot loop.
fn pause_after(short_sessions: u32) -> Duration {
    let Some(doublings) = short_sessions.checked_sub(1) else { return Duration::ZERO };
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
