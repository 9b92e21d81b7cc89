//! Exit codes: 0 is success, 2 is clap's own for wrong arguments.

/// It could not do its work.
pub(crate) const FAILED: u8 = 1;
/// The configuration is wrong: `EX_CONFIG` of sysexits.h. A supervisor need not try again.
pub(crate) const BAD_CONFIG: u8 = 78;
/// A second signal ended it: 128 + SIGINT, as shells count.
pub(crate) const INTERRUPTED: i32 = 130;
