//! Exit codes: 0 is success, 2 is clap's own for wrong arguments.

use config::BadConfig;

/// It could not do its work.
pub(crate) const FAILED: u8 = 1;
/// The configuration is wrong: `EX_CONFIG` of sysexits.h. A supervisor need not try again.
pub(crate) const BAD_CONFIG: u8 = 78;
/// A second signal ended it: 128 + SIGINT, as shells count.
pub(crate) const INTERRUPTED: i32 = 130;
/// As clap exits, for what only the command itself can see.
pub(crate) const WRONG_ARGUMENTS: u8 = 2;

/// A command that compares found a difference.
pub(crate) const DIFFERS: u8 = 3;

/// The broker does not have all that a host needs; what lacks.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotAsNeeded(pub(crate) String);

/// The arguments make no sense together; why, and what would.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongArguments(pub(crate) String);

/// The code for what went wrong.
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
