//! What a plugin can do beyond computing: the interfaces that it may import.
//!
//! `log` and `config` need no grant. `secrets`, `http` and `mail` answer `denied` without one.

mod answer;
mod config;
mod host_services;
mod http;
mod log;
mod mail;
mod placeholder;
mod preview;
mod secret_store;
mod secrets;
mod stdio;
mod wasi_http;

use contract::types;

use crate::Guest;
pub use crate::capability::config::PluginSettings;
pub use crate::capability::host_services::{HostServices, PluginAccess};
pub use crate::capability::log::{Beginning, LOG_TARGET, LogLine, PluginLog, SeenLine};
pub use crate::capability::preview::{Departure, Preview};
pub use crate::capability::secret_store::{NoValue, SecretStore};
pub use crate::capability::stdio::{GuestStdio, StdioStream};
pub use crate::capability::wasi_http::WasiHttp;

impl types::Host for Guest {}
