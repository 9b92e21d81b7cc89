//! `notify-host config`: checks, shows and documents the settings. Also `notify-host reload`.

mod check;
mod show;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use config::BadConfig;
use config::{HostConfig, host_example, host_schema, plugin_schema};
use http::{Method, StatusCode};
use supervisor::reload::Reloaded;

use crate::cli::RunArguments;
use crate::cli::command::{say, unless_cut_off};
use crate::cli::hosts::Hosts;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Show every fault in the host's settings and in the settings of all plugins
    ///
    /// Shows file, line and a suggestion for each fault. Opens nothing and calls no plugin: `plugin test` and the host
    /// report what shows only when a plugin is loaded, such as a setting that the plugin's own schema does not allow.
    ///
    /// Exit codes: 0 all is well; 1 failed; 2 wrong arguments; 78 there are faults.
    Check {
        #[command(flatten)]
        run: RunArguments,
        /// Print one JSON object per line, one for each fault
        #[arg(long)]
        json: bool,
    },
    /// Show the effective settings, and where each comes from: an option, a variable, a file or the default
    ///
    /// Accepts the options of `run`, and shows their effect. Passwords are left out.
    Show {
        #[command(flatten)]
        run: RunArguments,
        /// Print one JSON object per line, one for each key
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of a settings file, for editors
    Schema {
        /// Which file: the host's or a plugin's
        #[arg(value_enum, default_value_t = SchemaKind::Host)]
        of: SchemaKind,
    },
    /// Print a commented settings file with every key of the host's and its default
    Example,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaKind {
    Host,
    Plugin,
}

pub(crate) fn run(action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Check { run, json } => check::run(&run.layers(), json),
        Action::Show { run, json } => show::run(&run.layers(), json),
        Action::Schema { of } => {
            let schema = match of {
                SchemaKind::Host => host_schema(),
                SchemaKind::Plugin => plugin_schema(),
            };
            print(&format!("{schema:#}\n"))
        }
        Action::Example => print(&host_example()),
    }
}

/// Makes every running host with this plugin folder read its settings again.
pub(crate) async fn reload(config: &HostConfig) -> anyhow::Result<()> {
    let state = config.state_folder().context("there is no home directory: name the host's folder by --state")?;
    let state = state::of_plugins(&state, &config.plugins);
    let (mut failed, mut refused) = (Vec::new(), Vec::new());
    for answer in Hosts::find_some(&state, &config.plugins).await?.ask(Method::POST, "reload").await {
        match answer {
            Ok(reloaded) => tell(&reloaded),
            Err(refusal) if refusal.status == Some(StatusCode::UNPROCESSABLE_ENTITY) => refused.push(refusal.sentence),
            Err(refusal) => failed.push(refusal.sentence),
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
