//! Parses the arguments and runs the command.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use broker::BrokerUrl;
use clap::Parser as _;
use config::{HostConfig, Layers, LogFormat};
use tracing::level_filters::LevelFilter;

use crate::cli::command::{say, unless_cut_off};
use crate::cli::{self, Cli, Command, dead_letters, events, explain, health, manual, plugin, route, top, topology};
use crate::daemon::{self, Started};
use crate::{exit, logging, shutdown};

/// Runs the program and returns its exit code.
pub(crate) fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(arguments) => execute(arguments.command),
        Err(said) => match said.print() {
            // Help that could not be printed is a failure.
            Err(error) if !said.use_stderr() => finish(unless_cut_off(Err(error))),
            Ok(()) | Err(_) => ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(exit::WRONG_ARGUMENTS)),
        },
    }
}

fn execute(command: Command) -> ExitCode {
    match command {
        Command::Run(arguments) => run(&arguments.layers()),
        Command::Plugin { action, folder } => match folder.resolve() {
            Ok(config) => {
                logging::start(Some(LogFormat::Human), action.log_level());
                finish(block_on(plugin::run(action, &config)))
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
            logging::start(Some(LogFormat::Human), LevelFilter::WARN);
            finish(block_on(top::run(&arguments)))
        }
        Command::Reload { folder } => match folder.resolve() {
            Ok(config) => {
                logging::start(Some(LogFormat::Human), LevelFilter::WARN);
                finish(block_on(cli::config::reload(&config)))
            }
            Err(problem) => bad_config(&problem),
        },
        Command::Config { action } => match cli::config::run(action) {
            Ok(code) => code,
            Err(error) => finish(Err(error)),
        },
        Command::CompilePlugin { output, memory_reservation } => {
            match sandbox::compile_standard_input(&output, memory_reservation) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    // The host reads this line and decides whose fault it is. The exit code serves if it cannot.
                    let _ = writeln!(io::stderr(), "{error}");
                    ExitCode::from(if error.is_transient() { sandbox::TRY_AGAIN } else { exit::FAILED })
                }
            }
        }
        Command::DeadLetters { action, broker } => {
            with_settings(broker.resolve(), async |config, url| dead_letters::run(action, &config, &url).await)
        }
        Command::Topology { action, broker, folder } => {
            with_settings(broker.resolve(), async |config, url| topology::run(action, folder, config, &url).await)
        }
        Command::Manual(action) => finish(manual::run(&action)),
        Command::Route(arguments) => {
            logging::start(Some(LogFormat::Human), LevelFilter::WARN);
            finish(block_on(route::run(arguments)))
        }
    }
}

/// Runs the daemon.
fn run(layers: &Layers) -> ExitCode {
    let resolved = layers.resolve().map_err(String::from).and_then(|resolved| {
        let broker = broker_of(&resolved.config)?;
        Ok((resolved, broker))
    });
    let (resolved, broker) = match resolved {
        Ok(resolved) => resolved,
        Err(problem) => return bad_config(&problem),
    };
    let HostConfig { log_format, log_level, prefetch, .. } = resolved.config;
    let (log_level_handle, log) = logging::start_host(log_format, log_level, prefetch);
    if let Some(file) = &resolved.file {
        tracing::info!("the settings are those of {}", file.display());
    }
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    let done = block_on(async {
        let stop = shutdown::on_signals(log.closer())?;
        let started =
            Started { resolved, layers: layers.clone(), log_level: log_level_handle, log: log.status.clone() };
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

/// Runs a command with the settings, if they are valid.
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
    // A command logs only problems, as text.
    logging::start(Some(LogFormat::Human), LevelFilter::WARN);
    finish(block_on(command(config, broker)))
}

fn broker_of(config: &HostConfig) -> Result<BrokerUrl, String> {
    let broker = config.broker.clone().or_else(BrokerUrl::default_for_user);
    broker.ok_or_else(|| "there is no home directory to keep a queue in: name one with --broker".to_owned())
}

/// Runs a command on the state that hosts with this plugin folder keep.
fn with_journal(folder: &plugin::PluginFolder, command: impl AsyncFnOnce(PathBuf) -> anyhow::Result<()>) -> ExitCode {
    let config = match folder.resolve() {
        Ok(config) => config,
        Err(problem) => return bad_config(&problem),
    };
    logging::start(Some(LogFormat::Human), LevelFilter::WARN);
    finish(block_on(async {
        let state = config.state_folder().context("there is no home directory: name the host's folder by --state")?;
        command(state::of_plugins(&state, &config.plugins)).await
    }))
}

fn bad_config(problem: &str) -> ExitCode {
    say!("notify-host: {problem}");
    ExitCode::from(exit::BAD_CONFIG)
}

/// Reports a command's error, and returns the exit code.
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
    // Do not wait for blocking threads: a guest in an endless computation must not keep the process alive.
    runtime.shutdown_background();
    done
}
