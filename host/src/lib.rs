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
mod config_commands;
mod control;
mod crash_mark;
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
mod log_writer;
mod manual;
mod memory;
mod meters;
mod otlp;
mod plugin;
mod plugin_commands;
mod private;
mod reconcile;
mod redact;
mod relay;
mod reload;
mod route;
mod sample;
mod secret_value;
mod service;
mod sessions;
mod shutdown;
mod spans;
mod state;
mod telemetry;
mod top;
mod topology;
mod trace_context;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use broker::BrokerUrl;
use clap::Parser as _;
use tracing::level_filters::LevelFilter;

use crate::cli::{Cli, Command};
use crate::command::{say, unless_cut_off};
use crate::config::{HostConfig, Layers, LogFormat};
use crate::daemon::Started;

/// The program: arguments in, exit code out.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(arguments) => execute(arguments.command),
        Err(said) => match said.print() {
            // Help that is not where it was to be is none.
            Err(error) if !said.use_stderr() => finish(unless_cut_off(Err(error))),
            Ok(()) | Err(_) => ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(exit::WRONG_ARGUMENTS)),
        },
    }
}

fn execute(command: Command) -> ExitCode {
    match command {
        Command::Run(arguments) => run(&arguments.layers()),
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
        Command::Reload { folder } => match folder.settle() {
            Ok(config) => {
                telemetry::start(Some(LogFormat::Human), LevelFilter::WARN);
                finish(block_on(config_commands::reload(&config)))
            }
            Err(problem) => bad_config(&problem),
        },
        Command::Config { action } => match config_commands::run(action) {
            Ok(code) => code,
            Err(error) => finish(Err(error)),
        },
        Command::CompilePlugin { output, memory_reservation } => {
            match plugin::compile_standard_input(&output, memory_reservation) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    // For the host, which says whose fault it is. If that does not listen, the exit code must do.
                    let _ = writeln!(io::stderr(), "{error}");
                    ExitCode::from(if error.is_transient() { exit::TRY_AGAIN } else { exit::FAILED })
                }
            }
        }
        Command::DeadLetters { action, broker } => {
            with_settings(broker.settle(), async |config, url| dead_letters::run(action, &config, &url).await)
        }
        Command::Topology { action, broker, folder } => {
            with_settings(broker.settle(), async |config, url| topology::run(action, folder, config, &url).await)
        }
        Command::Manual(action) => finish(manual::run(&action)),
        Command::Route(arguments) => {
            telemetry::start(Some(LogFormat::Human), LevelFilter::WARN);
            finish(block_on(route::run(arguments)))
        }
    }
}

/// Runs the daemon.
fn run(layers: &Layers) -> ExitCode {
    let settled = layers.settle().map_err(String::from).and_then(|settled| {
        let broker = broker_of(&settled.config)?;
        Ok((settled, broker))
    });
    let (settled, broker) = match settled {
        Ok(settled) => settled,
        Err(problem) => return bad_config(&problem),
    };
    let HostConfig { log_format, log_level, prefetch, .. } = settled.config;
    let (volume, log) = telemetry::start_host(log_format, log_level, prefetch);
    if let Some(file) = &settled.file {
        tracing::info!("the settings are those of {}", file.display());
    }
    for warning in &settled.warnings {
        tracing::warn!("{warning}");
    }
    let done = block_on(async {
        let stop = shutdown::on_signals(log.closer())?;
        let started = Started { settled, layers: layers.clone(), volume, log: log.status.clone() };
        Box::pin(daemon::run(started, broker, &stop)).await
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit::code_of(&error))
        }
    }
}

/// Runs a command that is no daemon with the settings, if they are good.
fn with_settings(
    settings: Result<HostConfig, String>,
    command: impl AsyncFnOnce(HostConfig, BrokerUrl) -> anyhow::Result<()>,
) -> ExitCode {
    let settings = settings.and_then(|config| {
        let broker = broker_of(&config)?;
        Ok((config, broker))
    });
    let (config, broker) = match settings {
        Ok(settings) => settings,
        Err(problem) => return bad_config(&problem),
    };
    // It only logs what went wrong, in words.
    telemetry::start(Some(LogFormat::Human), LevelFilter::WARN);
    finish(block_on(command(config, broker)))
}

fn broker_of(config: &HostConfig) -> Result<BrokerUrl, String> {
    let broker = config.broker.clone().or_else(BrokerUrl::default_for_user);
    broker.ok_or_else(|| "there is no home directory to keep a queue in: name one with --broker".to_owned())
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
