//! Exit codes. 0 means success, and clap exits with 2 for wrong arguments.

use config::BadConfig;

/// The command failed.
pub(crate) const FAILED: u8 = 1;
/// The configuration is wrong: `EX_CONFIG` of sysexits.h. A supervisor need not restart the process.
pub(crate) const BAD_CONFIG: u8 = 78;
/// A second signal ended the process: 128 + SIGINT, as shells count.
pub(crate) const INTERRUPTED: i32 = 130;
/// The arguments are wrong in a way that only the command itself can detect. The code is clap's.
pub(crate) const WRONG_ARGUMENTS: u8 = 2;

/// A comparing command found a difference.
pub(crate) const DIFFERS: u8 = 3;

/// The broker lacks something that a host needs. The text says what.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotAsNeeded(pub(crate) String);

/// The arguments contradict each other. The text says why, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongArguments(pub(crate) String);

/// Returns the exit code for an error.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<WrongArguments>() {
        WRONG_ARGUMENTS
    } else if error.is::<NotAsNeeded>() {
        DIFFERS
    } else if error.is::<BadConfig>() {
        BAD_CONFIG
    } else {
        FAILED
    }
}
