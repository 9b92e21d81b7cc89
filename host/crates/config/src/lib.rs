//! Configuration: one file for the host and one beside each plugin. Both files are optional.
//!
//! Each file is checked as a whole before anything is opened. All its faults are reported at once, each with its line.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

mod admin;
#[cfg(test)]
mod broken;
mod changes;
mod document;
mod effective;
mod example;
mod faults;
mod grants;
mod host;
mod journal;
mod json_schema;
mod key;
mod layers;
mod limits;
mod log_policy;
mod mail;
mod network;
mod origin;
mod plugin;
mod policies;
mod quiet;
mod rate;
mod reader;
mod schema;
mod secret_name;
mod secrets;
mod settings;
mod source_location;
mod subscription;
mod table;
mod trace;
mod values;

pub use crate::admin::{AdminConfig, Listen};
pub use crate::effective::{Effective, ValueSource};
pub use crate::faults::ConfigFault;
pub use crate::grants::{Capability, Grants, Scope, mail_address};
pub use crate::host::{HostConfig, LogFormat};
pub use crate::journal::JournalBounds;
pub use crate::layers::{Layers, Resolved, default_files};
pub use crate::limits::{INSTANCES_MAX, Limits, MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX};
pub use crate::log_policy::LogPolicy;
pub use crate::mail::{DkimConfig, MailConfig, RelayAddress, Security};
pub use crate::network::Network;
pub use crate::origin::Origin;
pub use crate::plugin::{PluginConfig, WasmPath};
pub use crate::policies::{BreakerPolicy, Policies, RetryPolicy, ThrottlePolicy};
pub use crate::quiet::Spell;
pub use crate::rate::Rate;
pub use crate::schema::{SettingsError, complete, kind_name};
pub use crate::secret_name::heading as secret_heading;
pub use crate::secrets::{SecretGrant, SecretSource};
pub use crate::source_location::SourceLocation;
pub use crate::subscription::Subscription;
pub use crate::trace::{Collector, TracingConfig};
pub use crate::values::parse_duration;

/// A configuration file is wrong. The text says where and how.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub String);

/// Returns the JSON Schema of the host's file.
pub fn host_schema() -> serde_json::Value {
    json_schema::of(&HostConfig::keys(), "The settings of notify-host")
}

/// Returns the JSON Schema of a plugin's file.
pub fn plugin_schema() -> serde_json::Value {
    json_schema::of(&PluginConfig::keys(), "How notify-host runs a plugin")
}

/// Returns an example of the host's file: every key, commented out.
pub fn host_example() -> String {
    example::of_host(&HostConfig::keys())
}
