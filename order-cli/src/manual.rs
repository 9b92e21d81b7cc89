//! Shell completions and manual pages, generated from the command line.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Command, Subcommand};
use clap_complete::Shell;

use crate::exit::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Manual {
    /// Print a shell completion script
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the manual pages, one for each command, into a folder
    Man {
        /// The folder; it is created if it does not exist
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

impl Manual {
    pub(crate) fn make(self, mut command: Command) -> Result<(), Failure> {
        match self {
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut command, "order-cli", &mut script);
                let mut out = std::io::stdout().lock();
                out.write_all(&script).and_then(|()| out.flush()).map_err(Failure::Output)
            }
            Self::Man { folder } => fs::create_dir_all(&folder)
                .and_then(|()| clap_mangen::generate_to(command, &folder))
                .map_err(|problem| Failure::Pages { folder, problem }),
        }
    }
}
