//! How commands reach the hosts that run: each listens on a socket in the state folder, among those of
//! the same plugin folder. A line of JSON comes in, a line of JSON goes out.
//!
//! Who may open the socket may do everything, and that is the host's own user: the folder is private.

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

/// Of one request.
const REQUEST_BYTES_MAX: u64 = 64 << 10;

/// What a host is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    List,
    Pause { plugin: String },
    Resume { plugin: String },
    Reload { plugin: String },
    ReloadSettings,
}

/// What it answers; an error is a sentence.
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
    /// The settings have these faults.
    Refused(String),
}

/// How one plugin stands in one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginReport {
    pub name: String,
    pub state: PluginState,
    pub version: Option<String>,
    pub description: Option<String>,
    pub sha256: Option<Digest>,
    pub wasm: Option<PathBuf>,
    pub(crate) loaded_at: Option<Timestamp>,
    /// Calls that are being made.
    pub in_flight: usize,
    /// Why what is in the folder now did not load.
    pub problem: Option<String>,
    /// When that is tried again, if it was the machine's fault.
    pub tried_again_at: Option<Timestamp>,
    /// Why the last call failed of those that did.
    pub last_failure: Option<String>,
    /// Why its events wait in its queue though it is well: quiet hours, its rate, or a log that takes no lines.
    pub waits_for: Option<String>,
    /// When it is called again, if that is why.
    pub(crate) waits_until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginState {
    Running,
    /// The host has no queue for it in the broker, or no broker; or its log lines are its work, and the log takes none.
    Waiting,
    /// Too many of its calls failed: it is left alone for a while.
    Failing,
    /// It says so itself, and waits for new files or a word.
    Misconfigured,
    /// The operator holds it.
    Paused,
    /// It has quiet hours.
    Quiet,
    /// There is more for it than its rate allows.
    RateLimited,
    /// Its toml switches it off.
    Disabled,
    /// It does not load.
    Broken,
    /// The machine could not load it: that is tried again, and its events wait in its queue.
    NotLoaded,
    /// It is just being loaded for the first time.
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

/// The problem with a reply to another request.
pub const ANSWERED_OTHERWISE: &str = "a host answered something else; is it of another version?";

/// Where the hosts of one plugin folder listen; `state` is what belongs to it in the state folder.
fn sockets(state: &Path) -> PathBuf {
    state.join("hosts")
}
