//! The daemon: load the plugins and follow their folder, hold sessions with the broker, dispatch, drain.

use std::path::Path;
use std::sync::Arc;

use admin::{Admin, Sources};
use broker::BrokerUrl;
use config::{Layers, Settled};
use delivery::{Dispatcher, Duplicates, Quarantine, Registry, Unwanted, Vitals};
use journal::Journal;
use sandbox::capability::Outside;
use sandbox::{Engine, Loader};
use supervisor::reconcile::Reconciler;
use supervisor::reload::Reloader;
use supervisor::sessions::Sessions;
use supervisor::{control, reload};
use telemetry::LogLevelHandle;
use telemetry::log_writer::LogStatus;
use telemetry::metrics::Meters;
use telemetry::spans::Spans;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::otlp::Export;
use crate::{memory, systemd};

/// Runs until `stop`. An error means that it never got to work.
pub(crate) async fn run(started: Started, broker: BrokerUrl, stop: &CancellationToken) -> anyhow::Result<()> {
    let config = &started.settled.config;
    let outside = Outside::new(config)?;
    let meters = Meters::default();
    let export = Export::start(&config.tracing, outside.egress(), Arc::clone(&meters.host))?;
    let outside = outside.metered(meters.clone()).logging(started.log.clone());
    let ended = Box::pin(serve(started, broker, outside, meters, export.spans(), stop)).await;
    export.flush().await;
    ended
}

/// What the host is started with, and what of that can be changed.
pub(crate) struct Started {
    pub(crate) settled: Settled,
    pub(crate) layers: Layers,
    pub(crate) log_level: LogLevelHandle,
    pub(crate) log: LogStatus,
}

async fn serve(
    started: Started,
    broker: BrokerUrl,
    outside: Outside,
    meters: Meters,
    spans: Spans,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Started { settled, layers, log_level, log } = started;
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
    let journal = Journal::new(folder_state.as_deref().map(journal::file));
    journal.keep(config.journal);
    let duplicates = Duplicates::new(config.duplicates_window);
    let drain_timeout = watch::Sender::new(config.drain_timeout);
    let settings = Arc::new(Reloader {
        layers,
        started: settled.clone(),
        now: Mutex::new(settled),
        log_level,
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
        log,
        places,
        journal: journal.clone(),
        journal_file: folder_state.as_deref().map(journal::file),
        stop: stop.clone(),
    });
    let _informed = systemd::inform(Arc::clone(&admin), config.broker_timeout.is_some());
    if let Some(listening) = listening {
        // Not ended by `stop`: it tells how the stop goes.
        helpers.spawn(admin.run(listening));
    }
    hear_commands(&mut helpers, control, folder_state.as_deref(), stop);
    if stop.run_until_cancelled(reconciler.begin()).await.is_none() {
        return Ok(());
    }
    helpers.spawn(reconciler.run(stop.clone()));
    helpers.spawn(memory::give_back(Arc::clone(&meters.host)));
    let quarantine = Quarantine::open(folder_state.as_deref());
    let dispatcher = Dispatcher {
        source: Arc::new(config.source.clone()),
        rules: Arc::new(config.rules.clone()),
        registry,
        folder: config.plugins.as_path().into(),
        duplicates,
        unwanted: Unwanted::default(),
        prefetch: config.prefetch,
        drain_timeout: drain_timeout.subscribe(),
        observer: Arc::new(journal.clone()),
        vitals: Arc::clone(&vitals),
        quarantine: quarantine.clone(),
        spans,
        meters: Arc::clone(&meters.host),
    };
    let _closing = Closing(journal, quarantine);
    Sessions::new(broker, &config, &dispatcher.registry, &vitals).hold(&dispatcher, stop).await
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

/// The journal's last records are written, and the quarantine knows that this is no crash, however the daemon ends.
struct Closing(Journal, Quarantine);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
        self.1.close();
    }
}
