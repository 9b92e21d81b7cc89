//! The daemon: load the plugins, hold a session with the broker, dispatch, drain.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use broker::{Broker, BrokerError, BrokerUrl, ConnectError, ConnectOptions, Consumer};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::HostConfig;
use crate::delivery::{Dispatcher, Duplicates, Ended, Runner};
use crate::plugin::{Engine, Loader, load_folder};

/// One try to reach the broker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two of them.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(250);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(15);
/// A session that ends sooner did no good, and the next one waits.
const SESSION_SHORT: Duration = Duration::from_secs(10);
/// Of saying good-bye to the broker.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs until `stop`. An error means that it never got to work.
pub(crate) async fn run(config: HostConfig, broker: BrokerUrl, stop: &CancellationToken) -> anyhow::Result<()> {
    let loader = Arc::new(Loader::new(Engine::new()?)?);
    let plugins = load_folder(&loader, &config.plugins, &config.policies).await;
    let runners: Vec<_> = plugins.into_iter().map(|(file, plugin)| Arc::new(Runner::new(plugin, file))).collect();
    let dispatcher = Dispatcher {
        source: Arc::new(config.source.clone()),
        rules: Arc::new(config.rules.clone()),
        policies: config.policies,
        loader,
        runners: runners.into(),
        duplicates: Duplicates::new(config.duplicates_window),
        prefetch: config.prefetch,
        drain_timeout: config.drain_timeout,
    };
    let names: Vec<_> = dispatcher.runners.iter().map(|runner| &*runner.name).collect();
    let mut short_sessions = 0;
    let mut sessions = Sessions { url: broker, config: &config, plugins: &names, worked: false, warned: Vec::new() };
    loop {
        let Some((broker, consumer)) = sessions.open(stop).await? else { return Ok(()) };
        if names.is_empty() {
            // To take events and tell nobody would be to lose them.
            let folder = config.plugins.display();
            warn!("there is no plugin in {folder}: events stay in the queue; put one there and start the host again");
            consumer.close().await?;
            stop.cancelled().await;
            broker.close().await;
            return Ok(());
        }
        let (queue, url) = (config.source.names.source(), broker.url());
        info!("ready: consuming queue {queue:?} at {url} with {} plugins: {}", names.len(), names.join(", "));
        let started = Instant::now();
        match dispatcher.run(broker.clone(), consumer, stop).await {
            Ended::Lost(error) => {
                short_sessions = if started.elapsed() < SESSION_SHORT { short_sessions + 1 } else { 0 };
                let pause = pause_after(short_sessions);
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
                        warn!(count, "stopped: not all calls finished in time; their messages are back in the queue");
                    }
                }
                return Ok(());
            }
        }
    }
}

/// A message that breaks the session comes again on the next one: that must not become a hot loop.
fn pause_after(short_sessions: u32) -> Duration {
    let Some(doublings) = short_sessions.checked_sub(1) else { return Duration::ZERO };
    RECONNECT_PAUSE_MIN.saturating_mul(1 << doublings.min(10)).min(RECONNECT_PAUSE_MAX)
}

/// Opens sessions, for as long as it takes.
struct Sessions<'a> {
    url: BrokerUrl,
    config: &'a HostConfig,
    /// Whose queues are needed.
    plugins: &'a [&'a str],
    /// There was one that could consume.
    worked: bool,
    /// What has been said already.
    warned: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl Sessions<'_> {
    /// `None`: asked to stop before there was one.
    async fn open(&mut self, stop: &CancellationToken) -> anyhow::Result<Option<(Broker, Consumer)>> {
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

    async fn try_open(&mut self) -> Result<(Broker, Consumer), OpenError> {
        let options = ConnectOptions { name: "notify-host".to_owned(), timeout: CONNECT_TIMEOUT };
        let broker = Broker::connect(&self.url, &options).await?;
        let source = &self.config.source;
        let mut warnings = broker.declare_source(source).await?;
        warnings.extend(broker.declare_plugins(&source.names, self.plugins).await?);
        for warning in warnings {
            let warning = warning.to_string();
            if !self.warned.contains(&warning) {
                warn!("{warning}");
                self.warned.push(warning);
            }
        }
        let consumer = broker.consume(source.names.source(), self.config.prefetch).await?;
        Ok((broker, consumer))
    }
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
