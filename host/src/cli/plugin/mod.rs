//! The commands about plugins, for who writes them and for who runs them.

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

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Shows what is in a plugin's file: what it is, what it asks for and why, and the toml to write
    ///
    /// It is compiled, and asked to describe itself, in the sandbox and without any grant.
    Inspect(inspect::Arguments),
    /// Hands one event to a plugin, and shows what comes of it
    ///
    /// One attempt as in the host, with the same sandbox and limits, and nothing around it: no broker, no
    /// retry. What it sends is shown, and is sent, unless --dry-run says otherwise; secrets are shown by their names.
    /// Its log lines go to standard error as they come. The exit code is 0 if the plugin is done with
    /// the event or skips it, and 1 for any other outcome.
    Test(test::Arguments),
    /// Shows what a plugin asks for, and writes it into its toml after a yes
    ///
    /// What is in the toml stays, comments and all.
    Grant(grant::Arguments),
    /// Makes a project for a plugin, which builds and works at once
    ///
    /// Everything it needs of us is in it: it builds without this repository. Its README says how to build,
    /// try and use it.
    New(new::Arguments),
    /// Lists the plugins of the running host, and how each stands
    ///
    /// STATE is running; waiting (the host has no queue for it in the broker, or no broker); failing (too many of its calls fail, so it is left alone for a while); misconfigured
    /// (it says so itself, and waits for a change of its files); paused (by `plugin pause`); disabled (by its
    /// toml); broken (it does not load); loading. IN FLIGHT are the calls that are being made now. Below are the
    /// reason why what is in the folder does not load, and that of the last failure if the plugin is not well. What waits for a plugin is in `notify-host topology show`.
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Holds a plugin's events in its queue until it is resumed, also if the host is restarted
    Pause { name: String },
    /// Lets a paused, failing or misconfigured plugin go on with what waits for it
    Resume { name: String },
    /// Loads a plugin anew, whether or not its files have changed, and says what came of it
    Reload { name: String },
    /// Switches a plugin on in its toml
    Enable { name: String },
    /// Switches a plugin off in its toml: events that come meanwhile pass it by
    ///
    /// What waits in its queue stays there. To keep what comes meanwhile as well, pause it. While no plugin runs
    /// at all, events stay in the source's queue.
    Disable { name: String },
    /// Puts back the files with which a plugin worked before
    ///
    /// That is the version before the one that runs; or the one that runs, if what is in the folder now does not
    /// load. The host keeps the last five of each plugin in its state folder.
    Rollback {
        name: String,
        /// Only say what would be put back
        #[arg(long)]
        dry_run: bool,
    },
}

impl Action {
    /// What is said beside the answer.
    pub(crate) fn log_level(&self) -> LevelFilter {
        match self {
            Self::Test(arguments) => arguments.log_level,
            _ => LevelFilter::WARN,
        }
    }
}

/// Whose plugins are meant.
#[derive(Debug, Args)]
#[allow(clippy::doc_markdown, reason = "`--help` shows it as it stands")]
pub(crate) struct PluginFolder {
    /// The host's settings, which say where its plugins are
    #[arg(long, value_name = "FILE", env = "NOTIFY_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// The folder of the plugins [default: plugins] [env: NOTIFY_PLUGINS]
    #[arg(long, value_name = "DIR", global = true)]
    plugins: Option<String>,
    /// The host's own folder [default: notify-host in your state directory] [env: NOTIFY_STATE]
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<String>,
}

impl PluginFolder {
    /// The host's settings with these in them.
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
        Action::Pause { name } => tell::pause(&state()?, plugins, name).await,
        Action::Resume { name } => tell::resume(&state()?, plugins, name).await,
        Action::Reload { name } => tell::reload(&state()?, plugins, name).await,
        Action::Enable { name } => edit::switch(&state()?, plugins, &name, true).await,
        Action::Disable { name } => edit::switch(&state()?, plugins, &name, false).await,
        Action::Rollback { name, dry_run } => rollback::rollback(&state()?, plugins, &name, dry_run).await,
    }
}

/// What loads plugins as the host does, and finds what that has compiled before.
fn loader(config: &HostConfig) -> anyhow::Result<Loader> {
    loader_with(config, None)
}

/// The same, with a watch on what the plugins send.
fn loader_with(config: &HostConfig, preview: Option<Preview>) -> anyhow::Result<Loader> {
    Loader::new(Engine::new()?, config.state_folder().as_deref(), HostServices::new(config)?, preview)
}

/// What a plugin in this file would be called.
fn name_of(file: &Path) -> String {
    file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What its toml says; the defaults if there is none.
fn plugin_config(toml: &Path, host: &HostConfig) -> anyhow::Result<PluginConfig> {
    PluginConfig::read(toml, &host.policies).map_err(|problem| BadConfig(problem).into())
}
