//! What shells and `man` know of this program, made of its own command line.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{CommandFactory as _, Subcommand};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::cli::command::unless_cut_off;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Prints what makes a shell complete this program's commands and options
    ///
    /// For bash: notify-host completions bash > ~/.local/share/bash-completion/completions/notify-host
    #[command(verbatim_doc_comment)]
    Completions {
        /// Which shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Writes the manual pages, one for each command, into a folder
    Man {
        /// The folder; it is made if there is none
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

pub(crate) fn run(action: &Action) -> anyhow::Result<()> {
    match action {
        Action::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "notify-host", &mut script);
            let mut out = io::stdout().lock();
            unless_cut_off(out.write_all(&script).and_then(|()| out.flush()))
        }
        Action::Man { folder } => {
            write_pages(folder).with_context(|| format!("cannot write into {}", folder.display()))
        }
    }
}

fn write_pages(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)
}
