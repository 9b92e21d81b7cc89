//! The notification host: a daemon that consumes a queue and hands each event to sandboxed
//! WebAssembly plugins.
//!
//! Downwards only: `cli` → `daemon` → `delivery` → `plugin` → `capability`; `event` and `config`
//! are leaves.

mod capability;
mod cli;
mod config;
mod daemon;
mod delivery;
mod event;
mod exit;
mod plugin;
mod shutdown;
mod telemetry;

use std::process::ExitCode;

use broker::BrokerUrl;
use clap::Parser as _;

use crate::cli::{Cli, Command, RunArguments};

/// The program: arguments in, exit code out.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(arguments) => run(&arguments),
    }
}

fn run(arguments: &RunArguments) -> ExitCode {
    let settings = arguments.settle().and_then(|config| {
        let broker = config.broker.clone().or_else(BrokerUrl::default_for_user);
        let broker = broker.ok_or("there is no home directory to keep a queue in: name one with --broker")?;
        Ok((config, broker))
    });
    let (config, broker) = match settings {
        Ok(settings) => settings,
        Err(problem) => {
            eprintln!("notify-host: {problem}");
            return ExitCode::from(exit::BAD_CONFIG);
        }
    };
    telemetry::start(config.log_format, arguments.log_level);
    match block_on(config, broker) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit::FAILED)
        }
    }
}

fn block_on(config: config::HostConfig, broker: BrokerUrl) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let stop = shutdown::on_signals()?;
        daemon::run(config, broker, &stop).await
    });
    // A guest that computes without end must not keep the process alive.
    runtime.shutdown_background();
    done
}
