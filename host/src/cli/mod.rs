//! The command line.

#![allow(clippy::doc_markdown, reason = "`--help` shows it as it stands")]

mod command;
mod config;
mod confirm;
mod dead_letters;
mod events;
mod execute;
mod explain;
mod health;
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

/// Hands the events of a queue to sandboxed WebAssembly plugins.
///
/// Without any option `notify-host run` serves a queue in one file of yours, which `order-cli`
/// publishes to, and runs the plugins in ./plugins.
#[derive(Debug, Parser)]
#[command(name = "notify-host", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Consumes the queue until it is told to stop by SIGINT or SIGTERM
    ///
    /// The exchange and the queue are used as they are where they exist, and made where they do
    /// not. While the broker cannot be reached it tries again, for ever unless --broker-timeout
    /// says otherwise. The log goes to standard error.
    ///
    /// Exit codes: 0 stopped as asked; 1 failed; 2 wrong arguments; 78 wrong configuration;
    /// 130 ended by a second signal.
    Run(RunArguments),
    /// Lists, shows, replays, edits and deletes what was given up
    ///
    /// Works while hosts run. Nothing is removed before it is where it goes to: a command that is
    /// cut off may repeat a letter, and loses none.
    ///
    /// Exit codes: 0 done, or nothing to do; 1 failed; 2 wrong arguments; 78 wrong configuration.
    DeadLetters {
        #[command(subcommand)]
        action: dead_letters::Action,
        #[command(flatten)]
        broker: BrokerArguments,
    },
    /// Shows, checks and makes the exchanges and queues that a host needs in its broker
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
    /// Says which plugins would get an event, and by which rule
    ///
    /// Needs no broker, and calls no plugin but for what it says of itself.
    ///
    /// Exit codes: 0 said; 1 failed, or it is no event; 2 wrong arguments; 78 wrong configuration.
    Route(route::Arguments),
    /// Says what became of an event, or of all about one order: from the journal of the hosts here
    ///
    /// When it came, which plugins got it and by which rule, each attempt with its outcome and reason, and how it
    /// stands. The journal is that of the hosts with this plugin folder and state folder; what other hosts on the
    /// same queue did is in theirs.
    ///
    /// Exit codes: 0 said; 1 failed, or the journal knows nothing of it; 2 wrong arguments; 78 wrong configuration.
    Explain {
        #[command(flatten)]
        arguments: explain::Arguments,
        #[command(flatten)]
        folder: plugin::PluginFolder,
    },
    /// Shows what became of recent events, line by line, and with --follow goes on
    ///
    /// A line for each attempt, and for each event that no plugin wanted, that came twice, or that was none.
    ///
    /// Exit codes: 0 shown; 1 failed; 2 wrong arguments; 78 wrong configuration.
    Events {
        #[command(flatten)]
        arguments: events::Arguments,
        #[command(flatten)]
        folder: plugin::PluginFolder,
    },
    /// Shows a running host at a glance: throughput, plugins, recent events; pauses and resumes plugins
    ///
    /// It asks the host over HTTP. Without colours where `NO_COLOR` is set. Where there is no terminal,
    /// and with --once, it prints how the host is as text, and ends.
    ///
    /// Exit codes: 0 shown; 1 failed, or the host cannot be reached; 2 wrong arguments.
    Top(top::Arguments),
    /// Asks a running host whether it is well, for health checks
    ///
    /// It is well if it answers. With --ready it must take events, too: there are a session with the broker and a
    /// plugin, and work goes on.
    ///
    /// Exit codes: 0 it is; 1 it is not, or cannot be reached; 2 wrong arguments.
    Health(health::Arguments),
    /// Makes, inspects, tries out and grants plugins; lists, switches, reloads and rolls them back
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
    /// Has the running host read its settings again
    ///
    /// Says what holds from now on, and what needs a restart. A file with faults changes nothing. SIGHUP does the same.
    ///
    /// Exit codes: 0 done, or nothing has changed; 1 failed; 2 wrong arguments; 78 wrong configuration.
    Reload {
        #[command(flatten)]
        folder: plugin::PluginFolder,
    },
    /// Checks, shows and explains the settings
    Config {
        #[command(subcommand)]
        action: config::Action,
    },
    /// The host starts itself so, to compile a plugin
    #[command(name = COMPILE_COMMAND, hide = true)]
    CompilePlugin { output: PathBuf, memory_reservation: u64 },
}

/// Where the queues are.
#[derive(Debug, Args)]
pub(crate) struct BrokerArguments {
    /// The host's settings, in TOML; variables and options override them [default: notify-host.toml in notify-host in your config directory, else /etc/notify-host/notify-host.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "NOTIFY_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://… or sqlite:PATH
    ///
    /// Several amqp URLs, with commas between them, are the nodes of one cluster: one that can be
    /// used is used, and another when it is lost. Without a URL, a file in your state directory (on Linux ~/.local/state/notify-host/queue.db).
    /// [env: NOTIFY_BROKER]
    // Taken as text, because clap would show a wrong one with its password.
    #[arg(long, value_name = "URL", global = true)]
    broker: Option<String>,
}

impl BrokerArguments {
    pub(crate) fn layers(&self) -> Layers {
        let mut layers = Layers::of_process(self.config.as_deref());
        layers.flag("broker", "--broker", self.broker.as_ref());
        layers
    }

    /// The settings, of all layers.
    pub(crate) fn resolve(&self) -> Result<HostConfig, String> {
        Ok(self.layers().resolve()?.config)
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    broker: BrokerArguments,
    /// The folder of the plugins, NAME.wasm with NAME.toml beside it [default: plugins] [env: NOTIFY_PLUGINS]
    #[arg(long, value_name = "DIR")]
    plugins: Option<String>,
    /// The host's own folder, for compiled plugins and such [default: notify-host in your state directory] [env: NOTIFY_STATE]
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
    /// Give up if the broker cannot be reached at the start for so long, e.g. 30s [default: never] [env: NOTIFY_BROKER_TIMEOUT]
    #[arg(long, value_name = "TIME", value_parser = time)]
    broker_timeout: Option<String>,
    /// How long a stop waits for the calls in flight [default: 25s] [env: NOTIFY_DRAIN_TIMEOUT]
    #[arg(long, value_name = "TIME", value_parser = time)]
    drain_timeout: Option<String>,
    /// Where the admin surface listens: dashboard, metrics, health and API; or off [default: 127.0.0.1:9471] [env: NOTIFY_ADMIN]
    ///
    /// At an address that other machines can reach it needs --admin-token-file. Where the default address is taken, the
    /// host warns and runs without.
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen)]
    admin: Option<String>,
    /// A file with the token that whoever asks the admin surface must have [env: NOTIFY_ADMIN_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<String>,
    /// Send spans to the collector at this URL, by OTLP over HTTP; or off [default: off] [env: NOTIFY_OTLP]
    ///
    /// Without it, and without otlp in the file, the variables of OpenTelemetry itself say where.
    // Taken as text, because clap would show a wrong one with its password.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// How log lines look: human or json [default: human] [env: NOTIFY_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT", value_parser = ["human", "json"])]
    log_format: Option<String>,
    /// off, error, warn, info, debug or trace [default: info] [env: NOTIFY_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL", value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    log_level: Option<String>,
}

/// A length of time, as it was written.
fn time(text: &str) -> Result<String, String> {
    parse_duration(text).map(|_| text.to_owned())
}

/// An address, as it was written.
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
