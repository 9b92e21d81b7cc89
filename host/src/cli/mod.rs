//! The command line.

#![allow(clippy::doc_markdown, reason = "`--help` shows it as it stands")]

mod api;
mod command;
mod config;
mod confirm;
mod dead_letters;
mod events;
mod execute;
mod explain;
mod health;
mod hosts;
mod manual;
mod plugin;
mod route;
mod sample;
mod top;
mod topology;

use std::path::PathBuf;

use ::config::{HostConfig, Layers, Listen, parse_duration};
use clap::{Args, Parser, Subcommand};
use sandbox::COMPILE_COMMAND;

pub(crate) use crate::cli::execute::main;

/// Hand the events of a queue to sandboxed WebAssembly plugins.
///
/// Without options, `notify-host run` serves a queue in a single file of yours, which `order-cli` publishes to, and
/// runs the plugins in ./plugins.
#[derive(Debug, Parser)]
#[command(name = "notify-host", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Consume the queue until stopped by SIGINT or SIGTERM
    ///
    /// An existing exchange or queue is used as it is; a missing one is created. If the broker cannot be reached, the
    /// host keeps trying, forever unless --broker-timeout is set. The log goes to standard error.
    ///
    /// Exit codes: 0 stopped as asked; 1 failed; 2 wrong arguments; 78 wrong configuration;
    /// 130 ended by a second signal.
    Run(RunArguments),
    /// List, show, replay, edit and delete dead letters
    ///
    /// Works while hosts run. A letter is removed only after it has arrived at its destination: an interrupted command
    /// may repeat a letter, but loses none.
    ///
    /// Exit codes: 0 done, or nothing to do; 1 failed; 2 wrong arguments; 78 wrong configuration.
    DeadLetters {
        #[command(subcommand)]
        action: dead_letters::Action,
        #[command(flatten)]
        broker: BrokerArguments,
    },
    /// Show, check and create the exchanges and queues that a host needs in its broker
    ///
    /// Works while hosts run.
    ///
    /// Exit codes: 0 done, or all is there; 1 failed; 2 wrong arguments; 3 something is missing or could
    /// lose messages; 78 wrong configuration.
    Topology {
        #[command(subcommand)]
        action: topology::Action,
        #[command(flatten)]
        broker: BrokerArguments,
        #[command(flatten)]
        folder: topology::PluginFolder,
    },
    /// Show which plugins would get an event, and by which rule
    ///
    /// Needs no broker. Plugins are only asked to describe themselves.
    ///
    /// Exit codes: 0 said; 1 failed, or it is no event; 2 wrong arguments; 78 wrong configuration.
    Route(route::Arguments),
    /// Explain what became of an event, or of all events about one order
    ///
    /// Shows when an event arrived, which plugins got it and by which rule, each attempt with its outcome and reason,
    /// and the current state. The information comes from the journal of the hosts with this plugin folder and state
    /// folder; other hosts on the same queue have journals of their own.
    ///
    /// Exit codes: 0 said; 1 failed, or the journal knows nothing of it; 2 wrong arguments; 78 wrong configuration.
    Explain {
        #[command(flatten)]
        arguments: explain::Arguments,
        #[command(flatten)]
        folder: plugin::PluginFolder,
    },
    /// Show what became of recent events, line by line; with --follow, keep going
    ///
    /// Prints a line for each attempt, and for each event that no plugin wanted, that was a duplicate, or that could
    /// not be decoded.
    ///
    /// Exit codes: 0 shown; 1 failed; 2 wrong arguments; 78 wrong configuration.
    Events {
        #[command(flatten)]
        arguments: events::Arguments,
        #[command(flatten)]
        folder: plugin::PluginFolder,
    },
    /// Show a running host at a glance: throughput, plugins and recent events; pause and resume plugins
    ///
    /// Asks the host over HTTP. Prints no colours if `NO_COLOR` is set. With --once, or without a terminal, it prints
    /// one snapshot as text and exits.
    ///
    /// Exit codes: 0 shown; 1 failed, or the host cannot be reached; 2 wrong arguments.
    Top(top::Arguments),
    /// Check the health of a running host
    ///
    /// A host is healthy if it answers. With --ready it must also take events: it has a session with the broker and at
    /// least one plugin, and work proceeds.
    ///
    /// Exit codes: 0 it is; 1 it is not, or cannot be reached; 2 wrong arguments.
    Health(health::Arguments),
    /// Create, inspect, test and grant plugins; list, enable, reload and roll back installed ones
    ///
    /// Exit codes: 0 done; 1 failed; 2 wrong arguments; 78 wrong configuration.
    Plugin {
        #[command(subcommand)]
        action: plugin::Action,
        #[command(flatten)]
        folder: plugin::PluginFolder,
    },
    #[command(flatten)]
    Manual(manual::Action),
    /// Make the running host read its settings again
    ///
    /// Shows what has taken effect, and what needs a restart. A file with faults changes nothing. SIGHUP does the same.
    ///
    /// Exit codes: 0 done, or nothing has changed; 1 failed; 2 wrong arguments; 78 wrong configuration.
    Reload {
        #[command(flatten)]
        folder: plugin::PluginFolder,
    },
    /// Check, show and explain the settings
    Config {
        #[command(subcommand)]
        action: config::Action,
    },
    /// Compile a plugin; the host runs this command as a child process
    #[command(name = COMPILE_COMMAND, hide = true)]
    CompilePlugin { output: PathBuf, memory_reservation: u64 },
}

/// Settings of the broker.
#[derive(Debug, Args)]
pub(crate) struct BrokerArguments {
    /// Settings file in TOML; environment variables and options override it [default: notify-host.toml in notify-host
    /// in your config directory, else /etc/notify-host/notify-host.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "NOTIFY_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Broker URL: amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://… or sqlite:PATH
    ///
    /// Several amqp URLs, separated by commas, are the nodes of one cluster. The host uses one that is available, and
    /// switches to another when it is lost. Without a URL, the queue is a file in your state directory (on Linux
    /// ~/.local/state/notify-host/queue.db).
    /// [env: NOTIFY_BROKER]
    // Parsed later: clap would show an invalid URL with its password.
    #[arg(long, value_name = "URL", global = true)]
    broker: Option<String>,
}

impl BrokerArguments {
    pub(crate) fn layers(&self) -> Layers {
        let mut layers = Layers::of_process(self.config.as_deref());
        layers.flag("broker", "--broker", self.broker.as_ref());
        layers
    }

    /// Resolves the settings from all layers.
    pub(crate) fn resolve(&self) -> Result<HostConfig, String> {
        Ok(self.layers().resolve()?.config)
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    broker: BrokerArguments,
    /// Plugin folder: NAME.wasm files, each with an optional NAME.toml [default: plugins] [env: NOTIFY_PLUGINS]
    #[arg(long, value_name = "DIR")]
    plugins: Option<String>,
    /// State folder of the host, e.g. for compiled plugins [default: notify-host in your state directory] [env:
    /// NOTIFY_STATE]
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
    /// Give up if the broker cannot be reached within this time at the start, e.g. 30s [default: never] [env:
    /// NOTIFY_BROKER_TIMEOUT]
    #[arg(long, value_name = "TIME", value_parser = time)]
    broker_timeout: Option<String>,
    /// How long a shutdown waits for calls in flight [default: 25s] [env: NOTIFY_DRAIN_TIMEOUT]
    #[arg(long, value_name = "TIME", value_parser = time)]
    drain_timeout: Option<String>,
    /// Address of the admin server (dashboard, metrics, health and API), or off [default: 127.0.0.1:9471] [env:
    /// NOTIFY_ADMIN]
    ///
    /// An address that other machines can reach requires --admin-token-file. If the default address is taken, the host
    /// warns and runs without the admin server.
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen)]
    admin: Option<String>,
    /// File with the token that requests to the admin server must carry [env: NOTIFY_ADMIN_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<String>,
    /// Send spans to the collector at this URL by OTLP over HTTP, or off [default: off] [env: NOTIFY_OTLP]
    ///
    /// If neither this option nor otlp in the settings file is set, OpenTelemetry's own environment variables apply.
    // Parsed later: clap would show an invalid URL with its password.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Log format: human or json [default: human] [env: NOTIFY_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT", value_parser = ["human", "json"])]
    log_format: Option<String>,
    /// Log level: off, error, warn, info, debug or trace [default: info] [env: NOTIFY_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL", value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    log_level: Option<String>,
}

/// Checks a duration and returns it as written.
fn time(text: &str) -> Result<String, String> {
    parse_duration(text).map(|_| text.to_owned())
}

/// Checks a listen address and returns it as written.
fn listen(text: &str) -> Result<String, String> {
    text.parse::<Listen>().map(|_| text.to_owned())
}

impl RunArguments {
    pub(crate) fn layers(&self) -> Layers {
        let mut layers = self.broker.layers();
        layers.flag("plugins", "--plugins", self.plugins.as_ref());
        layers.flag("state", "--state", self.state.as_ref());
        layers.flag("broker-timeout", "--broker-timeout", self.broker_timeout.as_ref());
        layers.flag("drain-timeout", "--drain-timeout", self.drain_timeout.as_ref());
        layers.flag("admin", "--admin", self.admin.as_ref());
        layers.flag("admin-token-file", "--admin-token-file", self.admin_token_file.as_ref());
        layers.flag("tracing.otlp", "--otlp", self.otlp.as_ref());
        layers.flag("log-format", "--log-format", self.log_format.as_ref());
        layers.flag("log-level", "--log-level", self.log_level.as_ref());
        layers
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_hang_together() {
        Cli::command().debug_assert();
    }
}
