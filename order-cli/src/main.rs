//! Publishes order events. `order-cli --help` says more.

use std::process::ExitCode;

fn main() -> ExitCode {
    order_cli::run()
}
