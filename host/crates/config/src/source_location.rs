//! The place of a setting, for people who have to find it.

use std::fmt::{self, Display};
use std::path::PathBuf;

/// The place of a value or of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceLocation {
    /// Line and column count from 1; a column is a character.
    File { file: PathBuf, line: usize, column: usize },
    /// A flag or an environment variable.
    Override(String),
    /// The file as a whole.
    Whole(PathBuf),
}

impl Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, .. } => write!(f, "{}:{line}", file.display()),
            Self::Override(name) => f.write_str(name),
            Self::Whole(file) => write!(f, "{}", file.display()),
        }
    }
}
