//! What a plugin can do beyond computing: the interfaces that it may import.
//!
//! `log` and `config` need no grant. `secrets`, `http` and `mail` answer `denied` to everyone:
//! there is no way yet to grant them.

mod config;
mod console;
mod denied;
mod log;

pub(crate) use crate::capability::console::{Console, Stream};
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub use crate::capability::denied::Secret;
pub(crate) use crate::capability::log::{LOG_TARGET, LogLine, PluginLog};
