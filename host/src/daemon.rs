//! The daemon: loads the plugins and follows their folder, holds sessions with the broker, dispatches events, and
//! drains on shutdown.

use std::path::Path;
use std::sync::Arc;

use admin::{Admin, Sources};
use broker::BrokerUrl;
use config::{Layers, Resolved};
use delivery::{DeliveryStatus, Dispatcher, Duplicates, Quarantine, Registry, UnmatchedTypes};
use journal::Journal;
use sandbox::capability::HostServices;
use sandbox::{Engine, Loader};
use supervisor::control::{ControlSocket, PluginControl};
use supervisor::readiness::RunningHost;
use supervisor::reconcile::Reconciler;
use supervisor::reload::{self, Reloader};
use supervisor::sessions::Sessions;
use telemetry::LogLevelHandle;
use telemetry::log_writer::LogStatus;
use telemetry::metrics::Metrics;
use telemetry::spans::Spans;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::otlp::Export;
use crate::{memory, systemd};

/// Runs until `stop`. An error means that the host never started to work.
pub(crate) async fn run(started: Started, broker: BrokerUrl, stop: &CancellationToken) -> anyhow::Result<()> {
    let config = &started.resolved.config;
    let services = HostServices::new(config)?;
    let metrics = Metrics::default();
    let export = Export::start(&config.tracing, services.egress(), Arc::clone(&metrics.host))?;
    let services = services.with_metrics(metrics.clone()).logging(started.log.clone());
    let ended = Box::pin(serve(started, broker, services, metrics, export.spans(), stop)).await;
    export.flush().await;
    ended
}

/// The settings and the log that the host starts with, and handles to change them.
pub(crate) struct Started {
    pub(crate) resolved: Resolved,
    pub(crate) layers: Layers,
    pub(crate) log_level: LogLevelHandle,
    pub(crate) log: LogStatus,
}

async fn serve(
    started: Started,
    broker: BrokerUrl,
    services: HostServices,
    metrics: Metrics,
    spans: Spans,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Started { resolved, layers, log_level, log } = started;
    let config = Arc::new(resolved.config.clone());
    let listening = admin::listen(&config.admin).await?;
    let status = Arc::new(DeliveryStatus::default());
    let state = config.state_folder();
    let folder_state = state.as_ref().map(|state| state::of_plugins(state, &config.plugins));
    let registry = Arc::new(Registry::new());
    let loader = Loader::new(Engine::new()?, state.as_deref(), services, None)?;
    let instance_permits = loader.instance_permits();
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
        started: resolved.clone(),
        now: Mutex::new(resolved),
        log_level,
        policies: reconciler.adoptions(),
        journal: journal.clone(),
        duplicates: duplicates.clone(),
        drain_timeout: drain_timeout.clone(),
    });
    // Dropped at the end of this function, which ends the tasks.
    let mut helpers = JoinSet::new();
    helpers.spawn(reload::on_hangup(Arc::clone(&settings), stop.clone())?);
    let host = RunningHost {
        config: Arc::clone(&config),
        broker: broker.clone(),
        control: PluginControl { registry: Arc::clone(&registry), catalog, reloads },
        status: Arc::clone(&status),
        stop: stop.clone(),
    };
    let _informed = systemd::inform(host.clone(), config.broker_timeout.is_some());
    let admin = Admin::new(Sources {
        host,
        settings,
        metrics: metrics.clone(),
        log,
        instance_permits,
        journal: journal.clone(),
        journal_file: folder_state.as_deref().map(journal::file),
    });
    // Not cancelled by `stop`: it reports how the shutdown proceeds.
    helpers.spawn(admin.run(listening, control_socket(folder_state.as_deref()).await));
    if stop.run_until_cancelled(reconciler.begin()).await.is_none() {
        return Ok(());
    }
    helpers.spawn(reconciler.run(stop.clone()));
    helpers.spawn(memory::give_back(Arc::clone(&metrics.host)));
    let quarantine = Quarantine::open(folder_state.as_deref());
    let dispatcher = Dispatcher {
        source: Arc::new(config.source.clone()),
        rules: Arc::new(config.rules.clone()),
        registry,
        folder: config.plugins.as_path().into(),
        duplicates,
        unmatched_types: UnmatchedTypes::default(),
        prefetch: config.prefetch,
        drain_timeout: drain_timeout.subscribe(),
        observer: Arc::new(journal.clone()),
        status: Arc::clone(&status),
        quarantine: quarantine.clone(),
        spans,
        metrics: Arc::clone(&metrics.host),
    };
    let _closing = Closing(journal, quarantine);
    Sessions::new(broker, &config, &dispatcher.registry, &status).hold(&dispatcher, stop).await
}

/// Listens for commands, if there is a place for the socket.
async fn control_socket(folder: Option<&Path>) -> Option<ControlSocket> {
    let Some(folder) = folder else {
        warn!(
            "commands such as `notify-host plugin list` cannot reach this host: there is no home directory; name a folder by --state"
        );
        return None;
    };
    let unreachable = |error| warn!("commands such as `notify-host plugin list` cannot reach this host: {error}");
    ControlSocket::listen(folder).await.map_err(unreachable).ok()
}

/// Closes the journal, which writes its last records, and the quarantine, which must not take this end for a crash. As
/// a guard it runs however the daemon ends.
struct Closing(Journal, Quarantine);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
        self.1.close();
    }
}
