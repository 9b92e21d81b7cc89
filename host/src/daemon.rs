//! The daemon: load the plugins and follow their folder, hold a session with the broker, dispatch, drain.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use broker::{Broker, BrokerError, BrokerUrl, ConnectError, ConnectOptions};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{Admin, Sources};
use crate::capability::Outside;
use crate::config::{HostConfig, Layers, Settled};
use crate::delivery::{Dispatcher, Duplicates, Ended, Opened, Registry, Unwanted, Vitals};
use crate::journal::Journal;
use crate::meters::Meters;
use crate::otlp::Export;
use crate::plugin::{Engine, Loader};
use crate::reconcile::Reconciler;
use crate::reload::Reloader;
use crate::spans::Spans;
use crate::telemetry::Volume;
use crate::{admin, control, journal, reload, service, state};

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
pub(crate) async fn run(
    settled: Settled,
    layers: Layers,
    volume: Volume,
    broker: BrokerUrl,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let outside = Outside::new(&settled.config)?;
    let meters = Meters::default();
    let export = Export::start(&settled.config.tracing, outside.egress(), Arc::clone(&meters.host))?;
    let outside = outside.metered(meters.clone());
    let settings = Settings { settled, layers, volume };
    let ended = Box::pin(serve(settings, broker, outside, meters, export.spans(), stop)).await;
    export.flush().await;
    ended
}

/// What the host is started with, and what of that can be changed.
struct Settings {
    settled: Settled,
    layers: Layers,
    volume: Volume,
}

async fn serve(
    settings: Settings,
    broker: BrokerUrl,
    outside: Outside,
    meters: Meters,
    spans: Spans,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Settings { settled, layers, volume } = settings;
    let config = Arc::new(settled.config.clone());
    let listening = admin::listen(&config.admin).await?;
    let vitals = Arc::new(Vitals::default());
    let state = config.state_folder();
    let folder_state = state.as_ref().map(|state| state::of_plugins(state, &config.plugins));
    let registry = Arc::new(Registry::new());
    let loader = Loader::new(Engine::new()?, state.as_deref(), outside, None)?;
    let places = loader.places();
    let (mut reconciler, catalog, reloads) = Reconciler::new(
        &config.plugins,
        folder_state.as_deref(),
        config.policies.clone(),
        loader,
        Arc::clone(&registry),
    );
    let journal = match (&config.journal, &folder_state) {
        (Some(bounds), Some(folder)) => Journal::start(journal::file(folder), *bounds),
        (None, _) | (_, None) => Journal::off(),
    };
    let duplicates = Duplicates::new(config.duplicates_window);
    let drain_timeout = watch::Sender::new(config.drain_timeout);
    let settings = Arc::new(Reloader {
        layers,
        started: settled.clone(),
        now: Mutex::new(settled),
        volume,
        policies: reconciler.adoptions(),
        journal: journal.clone(),
        duplicates: duplicates.clone(),
        drain_timeout: drain_timeout.clone(),
    });
    // Dropped, and so ended, with this function.
    let mut helpers = JoinSet::new();
    helpers.spawn(reload::on_hangup(Arc::clone(&settings), stop.clone())?);
    let control = control::Server { registry: Arc::clone(&registry), catalog, reloads, settings };
    let admin = Admin::new(Sources {
        config: Arc::clone(&config),
        broker: broker.clone(),
        control: control.clone(),
        vitals: Arc::clone(&vitals),
        meters: meters.clone(),
        places,
        journal: journal.clone(),
        journal_file: folder_state.as_deref().map(journal::file).filter(|_| config.journal.is_some()),
        stop: stop.clone(),
    });
    let _informed = service::inform(Arc::clone(&admin), config.broker_timeout.is_some());
    if let Some(listening) = listening {
        // Not ended by `stop`: it tells how the stop goes.
        helpers.spawn(admin.run(listening));
    }
    hear_commands(&mut helpers, control, folder_state.as_deref(), stop);
    if stop.run_until_cancelled(reconciler.begin()).await.is_none() {
        return Ok(());
    }
    helpers.spawn(reconciler.run(stop.clone()));
    let dispatcher = Dispatcher {
        source: Arc::new(config.source.clone()),
        rules: Arc::new(config.rules.clone()),
        registry,
        folder: config.plugins.as_path().into(),
        duplicates,
        unwanted: Unwanted::default(),
        prefetch: config.prefetch,
        drain_timeout: drain_timeout.subscribe(),
        journal: journal.clone(),
        vitals: Arc::clone(&vitals),
        spans,
        meters: Arc::clone(&meters.host),
    };
    let _closing = Closing(journal);
    let mut short_sessions = 0;
    let mut sessions = Sessions {
        url: broker,
        config: &config,
        registry: &dispatcher.registry,
        vitals: &vitals,
        worked: false,
        warned: Vec::new(),
    };
    loop {
        let Some(opened) = sessions.open(stop).await? else { return Ok(()) };
        let broker = opened.broker.clone();
        let started = Instant::now();
        match dispatcher.run(opened, stop).await {
            Ended::Lost(error) => {
                short_sessions = if started.elapsed() < SESSION_SHORT { short_sessions + 1 } else { 0 };
                let pause = pause_after(short_sessions);
                vitals.away(error.to_string());
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

/// Lets commands reach this host, if there is a place where they can.
fn hear_commands(helpers: &mut JoinSet<()>, control: control::Server, folder: Option<&Path>, stop: &CancellationToken) {
    match folder.map(control::listen) {
        Some(Ok(listening)) => {
            helpers.spawn(control.run(listening, stop.clone()));
        }
        Some(Err(error)) => warn!("commands such as `notify-host plugin list` cannot reach this host: {error}"),
        None => warn!(
            "commands such as `notify-host plugin list` cannot reach this host: there is no home directory; name a folder by --state"
        ),
    }
}

/// The journal's last records are written however the daemon ends.
struct Closing(Journal);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
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
    /// Of the plugins whose queues are needed.
    registry: &'a Registry,
    vitals: &'a Vitals,
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
            self.vitals.away(error.clone());
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
        let mut names: Vec<_> = runners.iter().map(|runner| &*runner.name).collect();
        match broker.declare_plugins(&source.names, &names).await {
            Ok(more) => warnings.extend(more),
            Err(error @ BrokerError::Lost(_)) => return Err(error.into()),
            Err(_) => {
                // One whose queue cannot be made must not keep away the others; the session goes on trying.
                warnings.extend(broker.declare_plugins(&source.names, &[]).await?);
                let mut declared = Vec::new();
                for name in names {
                    match broker.declare_plugins(&source.names, &[name]).await {
                        Ok(_) => declared.push(name),
                        Err(error @ BrokerError::Lost(_)) => return Err(error.into()),
                        Err(_) => {}
                    }
                }
                names = declared;
            }
        }
        for warning in warnings {
            let warning = warning.to_string();
            if !self.warned.contains(&warning) {
                warn!("{warning}");
                self.warned.push(warning);
            }
        }
        let consumer = if names.is_empty() {
            None
        } else {
            Some(broker.consume(source.names.source(), self.config.prefetch).await?)
        };
        let declared = names.into_iter().map(str::to_owned).collect();
        Ok(Opened { broker, consumer, declared })
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
