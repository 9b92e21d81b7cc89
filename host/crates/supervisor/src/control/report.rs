//! How a plugin stands in a host, as `plugin list` and the API show it.

use std::path::PathBuf;

use delivery::{Health, Runner};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use state::digest::Digest;

use crate::reconcile::Status;

/// The status of one plugin in one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginReport {
    pub name: String,
    pub state: PluginState,
    pub version: Option<String>,
    pub description: Option<String>,
    pub sha256: Option<Digest>,
    pub wasm: Option<PathBuf>,
    loaded_at: Option<Timestamp>,
    /// Number of calls in progress.
    pub in_flight: usize,
    /// Why the files now in the folder did not load.
    pub problem: Option<String>,
    /// When loading is tried again, if the machine was at fault.
    pub tried_again_at: Option<Timestamp>,
    /// Why the most recent failed call failed.
    pub last_failure: Option<String>,
    /// Why events wait in the queue of a healthy plugin: quiet hours, its rate, or a log that accepts no lines.
    pub waits_for: Option<String>,
    /// When the plugin is called again, if quiet hours or its rate hold its events.
    waits_until: Option<Timestamp>,
}

impl PluginReport {
    /// `runner` is `None` if the plugin does not run.
    pub(super) fn new(runner: Option<&Runner>, name: String, status: Status) -> Self {
        let state = match runner.map(Runner::health) {
            Some(Health::Well | Health::Quiet | Health::RateLimited) if !runner.is_some_and(Runner::is_served) => {
                PluginState::Waiting
            }
            Some(Health::LogBlocked) => PluginState::Waiting,
            Some(Health::Well) => PluginState::Running,
            Some(Health::Quiet) => PluginState::Quiet,
            Some(Health::RateLimited) => PluginState::RateLimited,
            Some(Health::Failing) => PluginState::Failing,
            Some(Health::Misconfigured) => PluginState::Misconfigured,
            Some(Health::Held) => PluginState::Paused,
            Some(Health::NotLoaded) => PluginState::NotLoaded,
            None if status.is_off => PluginState::Disabled,
            None if status.problem.is_some() => PluginState::Broken,
            None => PluginState::Loading,
        };
        let loaded = status.loaded;
        let standing = runner.and_then(Runner::standing);
        let log = runner.and_then(|runner| runner.plugin()?.trouble_with_log());
        Self {
            name,
            state,
            version: loaded.as_ref().map(|loaded| loaded.version.clone()),
            description: loaded.as_ref().map(|loaded| loaded.description.clone()),
            sha256: loaded.as_ref().map(|loaded| loaded.sha256),
            wasm: loaded.as_ref().map(|loaded| loaded.wasm.clone()),
            loaded_at: loaded.as_ref().map(|loaded| loaded.at),
            in_flight: runner.map_or(0, Runner::in_flight),
            problem: status.problem,
            tried_again_at: status.tried_again_at,
            last_failure: runner.and_then(Runner::last_failure),
            waits_until: standing.as_ref().map(|standing| standing.until),
            waits_for: log.or(standing.map(|standing| standing.reason)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginState {
    Running,
    /// The host has no broker, or no queue for the plugin. Or the plugin's work is to write log lines, and the
    /// log accepts none.
    Waiting,
    /// Too many calls failed, so the breaker is open.
    Failing,
    /// The plugin reports that it is misconfigured. It waits for new files or for the operator to resume it.
    Misconfigured,
    /// The operator paused it.
    Paused,
    /// It is in its quiet hours.
    Quiet,
    /// More events arrive than its rate allows.
    RateLimited,
    /// Its toml disables it.
    Disabled,
    /// It does not load.
    Broken,
    /// The machine could not load it. Loading is tried again, and its events wait in its queue.
    NotLoaded,
    /// It is loading for the first time.
    Loading,
}

impl PluginState {
    pub const ALL: &[Self] = &[
        Self::Running,
        Self::Waiting,
        Self::Failing,
        Self::Misconfigured,
        Self::Paused,
        Self::Quiet,
        Self::RateLimited,
        Self::Disabled,
        Self::Broken,
        Self::NotLoaded,
        Self::Loading,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
            Self::Misconfigured => "misconfigured",
            Self::Paused => "paused",
            Self::Quiet => "quiet",
            Self::RateLimited => "rate-limited",
            Self::Disabled => "disabled",
            Self::Broken => "broken",
            Self::NotLoaded => "not-loaded",
            Self::Loading => "loading",
        }
    }
}
