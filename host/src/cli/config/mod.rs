//! The commands about configuration: what is wrong with it, what holds and who says so, and what there is to say.

mod check;
mod show;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use config::BadConfig;
use config::{HostConfig, host_example, host_schema, plugin_schema};
use supervisor::control::{self, ANSWERED_OTHERWISE, Reply, Request};
use supervisor::reload::Reloaded;

use crate::cli::RunArguments;
use crate::cli::command::{say, unless_cut_off};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Shows every fault in the host's settings and in the tomls of all plugins
    ///
    /// Each with file, line and what may have been meant. Opens nothing and calls no plugin: what only shows when one
    /// is loaded, such as a setting that its own schema does not know, is told by `plugin test` and the host.
    ///
    /// Exit codes: 0 all is well; 1 failed; 2 wrong arguments; 78 there are faults.
    Check {
        #[command(flatten)]
        run: RunArguments,
        /// One JSON object a line, one for each fault
        #[arg(long)]
        json: bool,
    },
    /// Shows the settings as they hold, and who says so: a flag, a variable, a file or nobody
    ///
    /// Takes the options of `run`, and shows what that would make of them. Passwords are left out.
    Show {
        #[command(flatten)]
        run: RunArguments,
        /// One JSON object a line, one for each key
        #[arg(long)]
        json: bool,
    },
    /// Shows the JSON Schema of a file, for editors
    Schema {
        /// The host's file, or that of a plugin
        #[arg(value_enum, default_value_t = Which::Host)]
        of: Which,
    },
    /// Shows a commented file with every key of the host's and its default, to begin with
    Example,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    Host,
    Plugin,
}

pub(crate) fn run(action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Check { run, json } => check::run(&run.layers(), json),
        Action::Show { run, json } => show::run(&run.layers(), json),
        Action::Schema { of } => {
            let schema = match of {
                Which::Host => host_schema(),
                Which::Plugin => plugin_schema(),
            };
            print(&format!("{schema:#}\n"))
        }
        Action::Example => print(&host_example()),
    }
}

/// Has every host that runs with this plugin folder read its settings again.
pub(crate) async fn reload(config: &HostConfig) -> anyhow::Result<()> {
    let state = config.state_folder().context("there is no home directory: name the host's folder by --state")?;
    let state = state::of_plugins(&state, &config.plugins);
    let (mut failed, mut refused) = (Vec::new(), Vec::new());
    for answer in control::ask(&state, &config.plugins, &Request::ReloadSettings).await? {
        match answer {
            Ok(Reply::Reloaded(reloaded)) => tell(&reloaded),
            Ok(Reply::Refused(problems)) => refused.push(problems),
            Ok(Reply::Done(_) | Reply::Plugins { .. }) => failed.push(ANSWERED_OTHERWISE.to_owned()),
            Err(problem) => failed.push(problem),
        }
    }
    refused.dedup();
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    if !refused.is_empty() {
        return Err(BadConfig(format!("the settings stay as they are\n{}", refused.join("\n"))).into());
    }
    Ok(())
}

fn tell(reloaded: &Reloaded) {
    if reloaded.taken.is_empty() && reloaded.restart.is_empty() {
        say!("nothing has changed");
    }
    for change in &reloaded.taken {
        say!("holds now: {change}");
    }
    for change in &reloaded.restart {
        say!("needs a restart: {change}");
    }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    unless_cut_off(out.write_all(text.as_bytes()).and_then(|()| out.flush()))?;
    Ok(ExitCode::SUCCESS)
}
