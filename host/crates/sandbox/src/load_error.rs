//! Why a plugin did not load, and whether a retry can help.
//!
//! The rule: a failure is permanent only if it lies in the plugin's own two files, because the host sees when these
//! change. Everything else is the machine's fault, or can change without the host noticing. It is retried.

use std::error::Error;
use std::fmt::Display;
use std::io;

use rustix::io::Errno;

/// Why a plugin did not load. Each variant has one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Memory, a disk, a signal, a timeout, a secret's file: the same files may load a moment later.
    #[error("{0}")]
    Transient(String),
    /// The plugin's file or its toml must change.
    #[error("{0}")]
    Permanent(String),
    /// The settings in its toml are invalid. Each fault is on its own line, with its place.
    #[error("{0}")]
    Settings(String),
}

impl LoadError {
    /// Creates a transient error that includes all parts of a chain of errors.
    pub(crate) fn transient(error: impl Display) -> Self {
        Self::Transient(format!("{error:#}"))
    }

    pub(crate) fn permanent(error: impl Display) -> Self {
        Self::Permanent(format!("{error:#}"))
    }

    /// Creates an error from reading one of the plugin's own files; `doing` says which.
    pub(crate) fn of_own_file(doing: impl Display, error: &io::Error) -> Self {
        let problem = format!("{doing}: {error}");
        if is_transient(error) { Self::Transient(problem) } else { Self::Permanent(problem) }
    }

    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_))
    }

    /// Puts the subject before the sentence. Faults in the settings already have their place.
    #[must_use]
    pub fn about(self, what: impl Display) -> Self {
        match self {
            Self::Transient(problem) => Self::Transient(format!("{what}: {problem}")),
            Self::Permanent(problem) => Self::Permanent(format!("{what}: {problem}")),
            Self::Settings(faults) => Self::Settings(faults),
        }
    }
}

/// Returns whether a file that could not be read may become readable without anybody changing it.
pub fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    // These kinds describe the file, or say that there is none. All others (no descriptor, no memory, a disk or
    // server that does not answer) describe the machine. Unknown kinds count as the machine's as well, because a
    // retry costs little.
    !matches!(
        error.kind(),
        Kind::NotFound
            | Kind::PermissionDenied
            | Kind::InvalidInput
            | Kind::InvalidData
            | Kind::InvalidFilename
            | Kind::FileTooLarge
            | Kind::IsADirectory
            | Kind::NotADirectory
    ) && error.raw_os_error() != Some(Errno::LOOP.raw_os_error())
}

/// Returns whether the engine failed because the machine lacked memory or a descriptor, or because the pool was
/// exhausted.
pub(crate) fn is_of_the_machine(error: &wasmtime::Error) -> bool {
    error.chain().any(is_lack)
}

fn is_lack(cause: &(dyn Error + 'static)) -> bool {
    cause.is::<io::Error>()
        || cause.is::<Errno>()
        || cause.is::<wasmtime::OutOfMemory>()
        || cause.is::<wasmtime::PoolConcurrencyLimitError>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_wrong_is_told_from_a_machine_that_cannot_read_it() {
        for (errno, expected) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOMEM, true),
            (Errno::IO, true),
            (Errno::STALE, true),
            (Errno::TIMEDOUT, true),
            (Errno::AGAIN, true),
            (Errno::NOENT, false),
            (Errno::ACCESS, false),
            (Errno::ISDIR, false),
            (Errno::NOTDIR, false),
            (Errno::LOOP, false),
            (Errno::NAMETOOLONG, false),
        ] {
            let error = io::Error::from(errno);
            assert_eq!(is_transient(&error), expected, "{error}");
        }
        let own = io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 64 MiB");
        let error = LoadError::of_own_file("cannot read it", &own).about("a.wasm");
        assert_eq!(error, LoadError::Permanent("a.wasm: cannot read it: it has more than 64 MiB".to_owned()));
    }

    #[test]
    fn what_an_engine_lacks_is_found_below_what_it_says() {
        let lack = wasmtime::Error::from(io::Error::from(Errno::NOMEM)).context("failed to create memory mapping");
        assert!(is_of_the_machine(&lack));
        assert!(!is_of_the_machine(&wasmtime::Error::msg("it does not validate")));
    }
}
