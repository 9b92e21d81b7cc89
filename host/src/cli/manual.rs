//! Generates shell completions and manual pages from the command line's definition.

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
    /// Print a shell completion script
    ///
    /// For bash: notify-host completions bash > ~/.local/share/bash-completion/completions/notify-host
    #[command(verbatim_doc_comment)]
    Completions {
        /// Shell to complete in
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write manual pages, one for each command, into a folder
    Man {
        /// Target folder, created if missing
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
