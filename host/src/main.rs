//! The notification host: a daemon that consumes a queue and hands each event to sandboxed WebAssembly plugins.
//!
//! This program is the wiring and the command line. The parts are in the crates below `crates/`.

mod cli;
mod daemon;
mod exit;
mod logging;
mod memory;
mod otlp;
mod shutdown;
mod systemd;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
