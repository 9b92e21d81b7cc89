//! Publishes order events. See `order-cli --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    order_cli::run()
}
