//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use crate::config::{HostConfig, Listen, LogFormat, parse_duration};
use crate::plugin::COMPILE_COMMAND;
use crate::{dead_letters, events, explain, health, manual, plugin_commands, route, top, topology};

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
        folder: plugin_commands::PluginFolder,
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
        folder: plugin_commands::PluginFolder,
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
        action: plugin_commands::Action,
        #[command(flatten)]
        folder: plugin_commands::PluginFolder,
    },
    #[command(flatten)]
    Manual(manual::Action),
    /// The host starts itself so, to compile a plugin
    #[command(name = COMPILE_COMMAND, hide = true)]
    CompilePlugin { output: PathBuf, memory_reservation: u64 },
}

/// Where the queues are.
#[derive(Debug, Args)]
pub(crate) struct BrokerArguments {
    /// The host's settings, in TOML; options override them
    #[arg(long, value_name = "FILE", env = "NOTIFY_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://… or sqlite:PATH
    ///
    /// Several amqp URLs, with commas between them, are the nodes of one cluster: one that can be
    /// used is used, and another when it is lost. Without a URL, a file in your state directory (on Linux ~/.local/state/notify-host/queue.db).
    // Taken as text, because clap would show a wrong one with its password.
    #[arg(long, value_name = "URL", env = "NOTIFY_BROKER", hide_env_values = true, global = true)]
    broker: Option<String>,
}

impl BrokerArguments {
    /// The settings: options over the file over the defaults.
    pub(crate) fn settle(&self) -> Result<HostConfig, String> {
        let mut config = match &self.config {
            Some(file) => HostConfig::read(file)?,
            None => HostConfig::default(),
        };
        if let Some(url) = &self.broker {
            config.broker = Some(url.parse().map_err(|error: broker::UrlError| error.to_string())?);
        }
        Ok(config)
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    broker: BrokerArguments,
    /// The folder of the plugins, NAME.wasm with NAME.toml beside it [default: plugins]
    #[arg(long, value_name = "DIR", env = "NOTIFY_PLUGINS")]
    plugins: Option<PathBuf>,
    /// The host's own folder, for compiled plugins and such [default: notify-host in your state directory]
    #[arg(long, value_name = "DIR", env = "NOTIFY_STATE")]
    state: Option<PathBuf>,
    /// Give up if the broker cannot be reached at the start for so long, e.g. 30s [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    broker_timeout: Option<Duration>,
    /// How long a stop waits for the calls in flight [default: 25s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    drain_timeout: Option<Duration>,
    /// Where the admin surface listens: dashboard, metrics, health and API; or off [default: 127.0.0.1:9471]
    ///
    /// At an address that other machines can reach it needs --admin-token-file. Where the default address is taken, the
    /// host warns and runs without.
    #[arg(long, value_name = "ADDR:PORT", env = "NOTIFY_ADMIN")]
    admin: Option<Listen>,
    /// A file with the token that whoever asks the admin surface must have
    #[arg(long, value_name = "FILE", env = "NOTIFY_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Send spans to the collector at this URL, by OTLP over HTTP; or off [default: off]
    ///
    /// Without it, and without otlp in the file, the variables of OpenTelemetry itself say where.
    // Taken as text, because clap would show a wrong one with its password.
    #[arg(long, value_name = "URL", env = "NOTIFY_OTLP", hide_env_values = true)]
    otlp: Option<String>,
    /// How log lines look [default: human]
    #[arg(long, value_enum, env = "NOTIFY_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "NOTIFY_LOG_LEVEL")]
    pub(crate) log_level: LevelFilter,
}

impl RunArguments {
    /// The settings: options over the file over the defaults.
    pub(crate) fn settle(&self) -> Result<HostConfig, String> {
        let mut config = self.broker.settle()?;
        config.broker_timeout = self.broker_timeout.or(config.broker_timeout);
        config.log_format = self.log_format.or(config.log_format);
        if let Some(plugins) = &self.plugins {
            config.plugins.clone_from(plugins);
        }
        config.state = self.state.clone().or(config.state);
        let otlp = self.otlp.as_deref().map(str::parse).transpose().map_err(|problem| format!("--otlp: {problem}"))?;
        config.tracing.settle(otlp, |name| std::env::var(name).ok())?;
        config.drain_timeout = self.drain_timeout.unwrap_or(config.drain_timeout);
        config.admin.listen = self.admin.unwrap_or(config.admin.listen);
        config.admin.token_file = self.admin_token_file.clone().or(config.admin.token_file);
        match config.admin.problem() {
            Some(problem) => Err(problem),
            None => Ok(config),
        }
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
