//! `notify-host topology`: shows, checks and creates what a host needs in its broker.

use std::io::{self, Write};
use std::path::PathBuf;

use broker::{Broker, BrokerUrl, Finding, Object, Presence, Role, TopologyItem};
use clap::{Args, Subcommand};
use config::HostConfig;
use dead_letters::session::{connect, within_time};
use event::text::{counted, shown};
use sandbox::plugin_names;
use serde::Serialize;

use crate::cli::command::{say, unless_cut_off, write_table};
use crate::exit::NotAsNeeded;

const MISSING: &str = "missing";
const HEADINGS: [&str; 4] = ["KIND", "NAME", "STATE", "FOR"];

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Show every exchange, queue and binding that the host needs, and its state
    Show(Output),
    /// Show only what is missing, and what exists but could lose messages
    ///
    /// The exit code is 3 if there is anything to show. RabbitMQ does not expose bindings or policies over AMQP, nor
    /// the properties of objects that this user may not configure.
    Check(Output),
    /// Create what is missing, and leave what exists as it is
    ///
    /// The host does the same when it starts. Run this as a RabbitMQ user with configure, read and write permissions,
    /// so that the host can use one that may only read and write. Repeat it for each plugin that is added. The exit
    /// code is 3 if existing objects could lose messages.
    Apply {
        /// Show what would be created, and create nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// The plugins whose queues are needed.
#[derive(Debug, Args)]
#[allow(clippy::doc_markdown, reason = "`--help` shows it as it stands")]
pub(crate) struct PluginFolder {
    /// Plugin folder; each plugin has a queue of its own [default: plugins] [env: NOTIFY_PLUGINS]
    #[arg(long, value_name = "DIR", global = true)]
    plugins: Option<PathBuf>,
}

pub(crate) async fn run(
    action: Action,
    folder: PluginFolder,
    mut config: HostConfig,
    url: &BrokerUrl,
) -> anyhow::Result<()> {
    config.plugins = folder.plugins.unwrap_or(config.plugins);
    let plugins = plugins(&config)?;
    let names: Vec<_> = plugins.iter().map(String::as_str).collect();
    let broker = connect(url, "topology").await?;
    let done = act(action, &config, &names, &broker).await;
    broker.close().await;
    done
}

fn plugins(config: &HostConfig) -> anyhow::Result<Vec<String>> {
    let folder = config.plugins.display();
    match plugin_names(&config.plugins, &config.policies) {
        Ok(plugins) => Ok(plugins),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            say!(
                "there is no plugin folder {folder}, so that no plugin's queue is looked at; name another by --plugins"
            );
            Ok(Vec::new())
        }
        Err(error) => anyhow::bail!("cannot read the plugin folder {folder}: {error}"),
    }
}

async fn act(action: Action, config: &HostConfig, plugins: &[&str], broker: &Broker) -> anyhow::Result<()> {
    let names = &config.source.names;
    let mut items = config.source.items();
    items.extend(names.plugins_items(plugins).into_iter().filter(|item| item.role != Role::Dead));
    // In the order in which an event meets them.
    items.sort_by_key(|item| match item.role {
        Role::Source => 0,
        Role::Plugin(_) => 1,
        Role::Retry(_) => 2,
        Role::Deliver => 3,
        Role::Dead => 4,
    });
    let findings = within_time(broker.inspect_topology(&items)).await?;
    match action {
        Action::Show(output) => {
            unless_cut_off(print(&findings, MISSING, output.json))?;
            say!("{}: {}", broker.url(), summary(&findings));
            Ok(())
        }
        Action::Check(output) => {
            let summary = summary(&findings);
            let wrong: Vec<_> = findings.into_iter().filter(is_wrong).collect();
            unless_cut_off(print(&wrong, MISSING, output.json))?;
            if wrong.is_empty() {
                say!("{}: {summary}", broker.url());
                return Ok(());
            }
            let advice =
                if wrong.iter().any(is_missing) { "; `notify-host topology apply` makes what is missing" } else { "" };
            Err(NotAsNeeded(format!("{}: {summary}{advice}", broker.url())).into())
        }
        Action::Apply { dry_run, output } => {
            let missing: Vec<_> = findings.into_iter().filter(is_missing).collect();
            let count = counted(missing.len(), "part");
            if dry_run {
                unless_cut_off(print(&missing, MISSING, output.json))?;
                say!("{}: would make {count}; what exists stays as it is", broker.url());
                return Ok(());
            }
            let mut warnings = within_time(broker.declare_source(&config.source)).await?;
            warnings.extend(within_time(broker.declare_plugins(names, plugins)).await?);
            unless_cut_off(print(&missing, "made", output.json))?;
            for warning in &warnings {
                say!("warning: {}", shown(&warning.0));
            }
            let done = format!("{}: made {count}; what exists stays as it is", broker.url());
            if warnings.is_empty() {
                say!("{done}");
                return Ok(());
            }
            Err(NotAsNeeded(format!("{done}, with {}", counted(warnings.len(), "warning"))).into())
        }
    }
}

fn is_missing(finding: &Finding) -> bool {
    finding.presence == Presence::Missing
}

fn is_wrong(finding: &Finding) -> bool {
    is_missing(finding) || !finding.warnings.is_empty()
}

fn summary(findings: &[Finding]) -> String {
    let missing = findings.iter().filter(|finding| is_missing(finding)).count();
    let warnings = findings.iter().map(|finding| finding.warnings.len()).sum();
    let (items, warnings) = (counted(findings.len(), "part"), counted(warnings, "warning"));
    match findings.iter().filter(|finding| !finding.seen && !is_missing(finding)).count() {
        0 => format!("{missing} of {items} missing, {warnings}"),
        unseen => format!("{missing} of {items} missing, {warnings}; {unseen} cannot be seen, or not wholly"),
    }
}

/// Prints the findings. `missing` is the state to print for an object that did not exist.
fn print(findings: &[Finding], missing: &'static str, json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        for finding in findings {
            serde_json::to_writer(&mut out, &FindingLine::of(finding, missing))?;
            writeln!(out)?;
        }
        return out.flush();
    }
    let rows: Vec<_> = findings.iter().map(|finding| row(finding, missing)).collect();
    let below = |at: usize| -> Vec<String> {
        let warnings = findings[at].warnings.iter().map(|warning| format!("  warning: {}", shown(&warning.0)));
        warnings.chain(findings[at].notes.iter().map(|note| format!("  note: {}", shown(note)))).collect()
    };
    write_table(&mut out, HEADINGS, &rows, below)?;
    out.flush()
}

fn row(finding: &Finding, missing: &str) -> [String; 4] {
    let TopologyItem { role, object } = &finding.item;
    let (kind, name) = name_of(object);
    let state = match finding.presence {
        Presence::Missing => missing.to_owned(),
        Presence::Unknown => "cannot be seen".to_owned(),
        Presence::There(None) => "there".to_owned(),
        Presence::There(Some(state)) => {
            let delayed = if state.delayed > 0 { format!(", {} waiting", state.delayed) } else { String::new() };
            let consumers = counted(usize::try_from(state.consumers).unwrap_or(usize::MAX), "consumer");
            format!("there: {} ready{delayed}, {consumers}", state.ready)
        }
    };
    let purpose = match role {
        Role::Source => "the events that come in".to_owned(),
        Role::Plugin(plugin) => format!("what plugin {plugin} has still to do"),
        Role::Deliver => "the way from a wait to the plugin".to_owned(),
        Role::Retry(tier) => format!("waits of {tier}"),
        Role::Dead => "dead letters".to_owned(),
    };
    [kind.to_owned(), shown(&name), state, purpose]
}

fn name_of(object: &Object) -> (&'static str, String) {
    match object {
        Object::Exchange { name, .. } => ("exchange", name.clone()),
        Object::Queue { name, .. } => ("queue", name.clone()),
        Object::Binding { exchange, routing_key, queue } => {
            ("binding", format!("{exchange} -> {queue} by {routing_key:?}"))
        }
    }
}

/// A finding as a line of JSON.
#[derive(Serialize)]
struct FindingLine<'a> {
    kind: &'static str,
    name: String,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'a str>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delayed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumers: Option<u64>,
    warnings: Vec<&'a str>,
    notes: &'a [String],
}

impl<'a> FindingLine<'a> {
    fn of(finding: &'a Finding, missing: &'static str) -> Self {
        let (kind, name) = name_of(&finding.item.object);
        let (state, queue) = match finding.presence {
            Presence::Missing => (missing, None),
            Presence::Unknown => ("unknown", None),
            Presence::There(queue) => ("there", queue),
        };
        let (role, plugin) = match &finding.item.role {
            Role::Source => ("source", None),
            Role::Plugin(plugin) => ("plugin", Some(plugin.as_str())),
            Role::Deliver => ("deliver", None),
            Role::Retry(_) => ("retry", None),
            Role::Dead => ("dead", None),
        };
        Self {
            kind,
            name,
            role,
            plugin,
            state,
            ready: queue.map(|queue| queue.ready),
            delayed: queue.map(|queue| queue.delayed),
            consumers: queue.map(|queue| queue.consumers),
            warnings: finding.warnings.iter().map(|warning| warning.0.as_str()).collect(),
            notes: &finding.notes,
        }
    }
}
