//! `notify-host plugin`: commands for plugin authors and operators.

mod edit;
mod grant;
mod inspect;
mod list;
mod new;
mod rollback;
mod sent;
mod settings;
mod tell;
mod template;
mod test;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use config::BadConfig;
use config::{HostConfig, Layers, PluginConfig};
use sandbox::capability::{HostServices, Preview};
use sandbox::{Engine, Loader};
use tracing::level_filters::LevelFilter;

use crate::cli::plugin::tell::tell;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Show what is in a plugin file: its description, its capability requests with reasons, and a toml to start from
    ///
    /// The plugin is compiled and asked to describe itself, in the sandbox and without any grant.
    Inspect(inspect::Arguments),
    /// Hand one event to a plugin and show the result
    ///
    /// Makes one attempt as the host would, with the same sandbox and limits, but without a broker or retries. Requests
    /// and mails are shown, and also sent unless --dry-run is given; secrets are shown by name. Log lines go to
    /// standard error as they arrive. The exit code is 0 if the plugin is done with the event or skips it, and 1 for
    /// any other outcome.
    Test(test::Arguments),
    /// Show the capabilities that a plugin requests, and grant them in its toml after a confirmation
    ///
    /// The rest of the toml stays as it is, including comments.
    Grant(grant::Arguments),
    /// Create a project for a plugin, ready to build
    ///
    /// The project contains everything it needs and builds without this repository. Its README explains how to build,
    /// test and install the plugin.
    New(new::Arguments),
    /// List the plugins of the running host, with their states
    ///
    /// STATE is running; waiting (the host has no queue for it in the broker, or no broker); failing (too many calls
    /// failed, so calls are suspended for a while); misconfigured (the plugin says so itself; it waits for a change of
    /// its files); paused (by `plugin pause`); disabled (in its toml); broken (it does not load); loading. IN FLIGHT is
    /// the number of calls in progress. Lines below a plugin say why the files in the folder do not load, or why the
    /// last call failed. `notify-host topology show` shows how many deliveries wait for a plugin.
    List {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Hold a plugin's events in its queue until it is resumed, even across restarts of the host
    Pause { name: String },
    /// Resume a paused, failing or misconfigured plugin
    Resume { name: String },
    /// Load a plugin again, even if its files have not changed, and show the result
    Reload { name: String },
    /// Enable a plugin in its toml
    Enable { name: String },
    /// Disable a plugin in its toml; events that arrive meanwhile pass it by
    ///
    /// Events already in its queue stay there. To keep new events as well, pause the plugin instead. While no plugin
    /// runs at all, events stay in the source queue.
    Disable { name: String },
    /// Restore the plugin files that worked before
    ///
    /// Restores the version before the running one; or the running one, if the files in the folder do not load. The
    /// host keeps the last five versions of each plugin in its state folder.
    Rollback {
        name: String,
        /// Show what would be restored, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl Action {
    /// Returns the level of messages beside the output.
    pub(crate) fn log_level(&self) -> LevelFilter {
        match self {
            Self::Test(arguments) => arguments.log_level,
            _ => LevelFilter::WARN,
        }
    }
}

/// Where the plugins are.
#[derive(Debug, Args)]
#[allow(clippy::doc_markdown, reason = "`--help` shows it as it stands")]
pub(crate) struct PluginFolder {
    /// Settings file of the host, which names the plugin folder
    #[arg(long, value_name = "FILE", env = "NOTIFY_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Plugin folder [default: plugins] [env: NOTIFY_PLUGINS]
    #[arg(long, value_name = "DIR", global = true)]
    plugins: Option<String>,
    /// State folder of the host [default: notify-host in your state directory] [env: NOTIFY_STATE]
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<String>,
}

impl PluginFolder {
    /// Resolves the host's settings with these options.
    pub(crate) fn resolve(&self) -> Result<HostConfig, String> {
        let mut layers = Layers::of_process(self.config.as_deref());
        layers.flag("plugins", "--plugins", self.plugins.as_ref());
        layers.flag("state", "--state", self.state.as_ref());
        Ok(layers.resolve()?.config)
    }
}

pub(crate) async fn run(action: Action, config: &HostConfig) -> anyhow::Result<()> {
    let plugins = &config.plugins;
    let state = || {
        let state = config.state_folder().context("there is no home directory: name the host's folder by --state")?;
        anyhow::Ok(state::of_plugins(&state, plugins))
    };
    match action {
        Action::Inspect(arguments) => inspect::run(&arguments, config).await,
        Action::Test(arguments) => test::run(&arguments, config).await,
        Action::Grant(arguments) => grant::run(&arguments, config).await,
        Action::New(arguments) => new::run(&arguments),
        Action::List { json } => list::list(&state()?, plugins, json).await,
        Action::Pause { name } => tell(&state()?, plugins, "pause", &name).await,
        Action::Resume { name } => tell(&state()?, plugins, "resume", &name).await,
        Action::Reload { name } => tell(&state()?, plugins, "reload", &name).await,
        Action::Enable { name } => edit::switch(&state()?, plugins, &name, true).await,
        Action::Disable { name } => edit::switch(&state()?, plugins, &name, false).await,
        Action::Rollback { name, dry_run } => rollback::rollback(&state()?, plugins, &name, dry_run).await,
    }
}

/// Makes a loader like the host's, which reuses the host's compiled plugins.
fn loader(config: &HostConfig) -> anyhow::Result<Loader> {
    loader_with(config, None)
}

/// Like [`loader`], and records what plugins send.
fn loader_with(config: &HostConfig, preview: Option<Preview>) -> anyhow::Result<Loader> {
    Loader::new(Engine::new()?, config.state_folder().as_deref(), HostServices::new(config)?, preview)
}

/// Returns the name that a plugin in this file would have.
fn name_of(file: &Path) -> String {
    file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Reads a plugin's toml; without one, returns the defaults.
fn plugin_config(toml: &Path, host: &HostConfig) -> anyhow::Result<PluginConfig> {
    PluginConfig::read(toml, &host.policies).map_err(|problem| BadConfig(problem).into())
}
