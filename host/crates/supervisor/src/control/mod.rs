//! Lets commands reach running hosts. Each host listens on a socket in the state folder of its plugin folder. A
//! request is one line of JSON, and so is the answer.
//!
//! Anyone who can open the socket has full control. The folder is private, so that is only the user that runs
//! the host.

mod client;
mod server;
mod socket;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use state::digest::Digest;

pub use crate::control::client::{Hosts, ask};
pub use crate::control::server::{Server, listen};
use crate::reload::Reloaded;

/// Maximum bytes of one request.
const REQUEST_BYTES_MAX: u64 = 64 << 10;

/// A request to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    List,
    Pause { plugin: String },
    Resume { plugin: String },
    Reload { plugin: String },
    ReloadSettings,
}

/// A host's answer. The error is a sentence.
pub type Answer = Result<Reply, String>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Plugins {
        process: u32,
        plugins: Vec<PluginReport>,
    },
    Done(String),
    Reloaded(Reloaded),
    /// The settings are faulty, in the ways listed.
    Refused(String),
}

/// The status of one plugin in one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginReport {
    pub name: String,
    pub state: PluginState,
    pub version: Option<String>,
    pub description: Option<String>,
    pub sha256: Option<Digest>,
    pub wasm: Option<PathBuf>,
    pub(crate) loaded_at: Option<Timestamp>,
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
    pub(crate) waits_until: Option<Timestamp>,
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

/// The problem reported when a host answers a different request.
pub const ANSWERED_OTHERWISE: &str = "a host answered something else; is it of another version?";

/// Returns the folder of the sockets. `state` is the state folder of the plugin folder.
fn sockets(state: &Path) -> PathBuf {
    state.join("hosts")
}
