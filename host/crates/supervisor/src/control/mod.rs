//! Control of a running host: its plugins, and the socket by which commands find it.
//!
//! The host serves its API on the socket, in the state folder of its plugin folder. Anyone who can open the socket has
//! full control. The folder is private, so that is only the user that runs the host.

mod plugins;
mod report;
mod socket;

pub use crate::control::plugins::{PluginControl, check_name};
pub use crate::control::report::{PluginReport, PluginState};
pub use crate::control::socket::{ControlSocket, connect};
