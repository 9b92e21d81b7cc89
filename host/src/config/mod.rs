//! Configuration: one file for the host, one beside each plugin. Both may be absent.
//!
//! A file is checked as a whole before anything is opened, and every fault in it is reported at
//! once, each with its line.

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
mod json_schema;
mod key;
mod layers;
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
mod secrets;
mod settings;
mod table;
mod trace;
mod values;

pub(crate) use crate::config::admin::{AdminConfig, Listen};
pub(crate) use crate::config::effective::{Effective, Source};
pub(crate) use crate::config::faults::{Fault, Place};
pub(crate) use crate::config::grants::{Capability, Grants, Scope, mail_address};
pub(crate) use crate::config::host::{HostConfig, LogFormat};
pub(crate) use crate::config::layers::{Layers, Settled, default_files};
pub(crate) use crate::config::log_policy::LogPolicy;
pub(crate) use crate::config::mail::{DkimConfig, MailConfig, RelayAddress, Security};
pub(crate) use crate::config::network::Network;
pub(crate) use crate::config::origin::Origin;
pub(crate) use crate::config::plugin::{PluginConfig, WasmPath};
pub(crate) use crate::config::policies::{BreakerPolicy, PacePolicy, Policies, RetryPolicy};
pub(crate) use crate::config::quiet::Spell;
pub(crate) use crate::config::rate::Rate;
pub(crate) use crate::config::schema::{SettingsError, complete, kind_name};
pub(crate) use crate::config::secrets::{SecretGrant, SecretSource, heading as secret_heading};
pub(crate) use crate::config::trace::{Collector, TracingConfig};
pub(crate) use crate::config::values::parse_duration;

/// The JSON Schema of the host's file.
pub(crate) fn host_schema() -> serde_json::Value {
    json_schema::of(&HostConfig::keys(), "The settings of notify-host")
}

/// That of what stands beside a plugin.
pub(crate) fn plugin_schema() -> serde_json::Value {
    json_schema::of(&PluginConfig::keys(), "How notify-host runs a plugin")
}

/// The host's file with every key in it, commented out.
pub(crate) fn host_example() -> String {
    example::of_host(&HostConfig::keys())
}
