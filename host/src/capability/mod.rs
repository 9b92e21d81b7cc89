//! What a plugin can do beyond computing: the interfaces that it may import.
//!
//! `log` and `config` need no grant. `secrets`, `http` and `mail` answer `denied` without one.

mod answer;
mod config;
mod console;
mod http;
mod log;
mod mail;
mod outside;
mod placeholder;
mod preview;
mod secrets;
mod vault;
mod wasi_http;

pub(crate) use crate::capability::config::PluginSettings;
pub(crate) use crate::capability::console::{Console, Stream};
pub(crate) use crate::capability::log::{Beginning, LOG_TARGET, LogLine, PluginLog, SeenLine};
pub(crate) use crate::capability::outside::{Outside, Reach};
pub(crate) use crate::capability::preview::{Departure, Preview};
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub use crate::capability::secrets::Secret;
pub(crate) use crate::capability::vault::{NoValue, Vault};
pub(crate) use crate::capability::wasi_http::WasiHttp;
use crate::plugin::Guest;
use crate::plugin::contract::types;

impl types::Host for Guest {}
