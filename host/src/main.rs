//! See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    notify_host::main()
}
