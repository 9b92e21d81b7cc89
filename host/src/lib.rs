//! The notification host: a daemon that consumes a queue and hands each event to sandboxed
//! WebAssembly plugins.
//!
//! Downwards only: `cli` → `daemon` → `delivery` → `plugin` → `capability`; `event` and `config`
//! are leaves.

mod admin;
mod ask;
mod capability;
mod cli;
mod command;
mod config;
mod control;
mod daemon;
mod dead_letters;
mod delivery;
mod digest;
mod egress;
mod event;
mod events;
mod exit;
mod explain;
mod file;
mod health;
mod indent;
mod journal;
mod likeness;
mod manual;
mod meters;
mod otlp;
mod plugin;
mod plugin_commands;
mod private;
mod reconcile;
mod relay;
mod route;
mod sample;
mod secret_value;
mod service;
mod shutdown;
mod spans;
mod state;
mod telemetry;
mod top;
mod topology;
mod trace_context;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use broker::BrokerUrl;
use clap::Parser as _;
use tracing::level_filters::LevelFilter;

use crate::cli::{Cli, Command};
use crate::command::say;
use crate::config::{HostConfig, LogFormat};

/// The program: arguments in, exit code out.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(arguments) => {
            let log_level = arguments.log_level;
            with_settings(arguments.settle(), Some(log_level), async |config, broker| {
                let stop = shutdown::on_signals()?;
                Box::pin(daemon::run(config, broker, &stop)).await
            })
        }
        Command::Plugin { action, folder } => match folder.settle() {
            Ok(config) => {
                telemetry::start(Some(LogFormat::Human), action.log_level());
                finish(block_on(plugin_commands::run(action, &config)))
            }
            Err(problem) => bad_config(&problem),
        },
        Command::Explain { arguments, folder } => {
            with_journal(&folder, async |state| explain::run(&arguments, &state).await)
        }
        Command::Events { arguments, folder } => {
            with_journal(&folder, async |state| events::run(&arguments, &journal::file(&state)).await)
        }
        Command::Health(arguments) => finish(block_on(health::run(&arguments))),
        Command::Top(arguments) => {
            telemetry::start(Some(LogFormat::Human), LevelFilter::WARN);
            finish(block_on(top::run(&arguments)))
        }
        Command::CompilePlugin { output, memory_reservation } => {
            match plugin::compile_standard_input(&output, memory_reservation) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    // For the host, which says whose fault it is.
                    eprintln!("{error:#}");
                    ExitCode::from(exit::FAILED)
                }
            }
        }
        Command::DeadLetters { action, broker } => {
            with_settings(broker.settle(), None, async |config, url| dead_letters::run(action, &config, &url).await)
        }
        Command::Topology { action, broker, folder } => {
            with_settings(broker.settle(), None, async |config, url| topology::run(action, folder, config, &url).await)
        }
        Command::Manual(action) => finish(manual::run(&action)),
        Command::Route(arguments) => {
            telemetry::start(Some(LogFormat::Human), LevelFilter::WARN);
            finish(block_on(route::run(arguments)))
        }
    }
}

/// Runs a command with the settings, if they are good. A `log_level` is a daemon's; other commands
/// only log what went wrong, in words.
fn with_settings(
    settings: Result<HostConfig, String>,
    log_level: Option<LevelFilter>,
    command: impl AsyncFnOnce(HostConfig, BrokerUrl) -> anyhow::Result<()>,
) -> ExitCode {
    let settings = settings.and_then(|config| {
        let broker = config.broker.clone().or_else(BrokerUrl::default_for_user);
        let broker = broker.ok_or("there is no home directory to keep a queue in: name one with --broker")?;
        Ok((config, broker))
    });
    let (config, broker) = match settings {
        Ok(settings) => settings,
        Err(problem) => return bad_config(&problem),
    };
    match log_level {
        Some(level) => telemetry::start(config.log_format, level),
        None => telemetry::start(Some(LogFormat::Human), LevelFilter::WARN),
    }
    let done = block_on(command(config, broker));
    match (done, log_level) {
        (Err(error), Some(_)) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit::code_of(&error))
        }
        (done, _) => finish(done),
    }
}

/// Runs a command on what the hosts with this plugin folder keep in their state folder.
fn with_journal(
    folder: &plugin_commands::PluginFolder,
    command: impl AsyncFnOnce(PathBuf) -> anyhow::Result<()>,
) -> ExitCode {
    let config = match folder.settle() {
        Ok(config) => config,
        Err(problem) => return bad_config(&problem),
    };
    telemetry::start(Some(LogFormat::Human), LevelFilter::WARN);
    finish(block_on(async {
        let state = config.state_folder().context("there is no home directory: name the host's folder by --state")?;
        command(state::of_plugins(&state, &config.plugins)).await
    }))
}

fn bad_config(problem: &str) -> ExitCode {
    say!("notify-host: {problem}");
    ExitCode::from(exit::BAD_CONFIG)
}

/// The end of a command that is no daemon.
fn finish(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("notify-host: {error:#}");
            ExitCode::from(exit::code_of(&error))
        }
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    // A guest that computes without end must not keep the process alive.
    runtime.shutdown_background();
    done
}
