//! `notify-host route`: shows which plugins would get an event, and by which rule. It uses delivery's own routing
//! function.

use std::io::{self, Write as _};
use std::path::Path;

use clap::Args;
use config::BadConfig;
use config::Subscription;
use config::{HostConfig, Spell};
use delivery::{Verdict, because, verdict};
use event::text::{counted, shown};
use event::{Event, Look};
use jiff::Timestamp;
use sandbox::capability::{HostServices, Preview};
use sandbox::{Engine, Loaded, Loader, Plugin, scan};
use serde_json::json;

use crate::cli::command::{say, unless_cut_off, write_json, write_table};
use crate::cli::plugin::PluginFolder;
use crate::cli::sample::SampleArguments;

const HEADINGS: [&str; 3] = ["PLUGIN", "GETS IT", "BECAUSE"];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    sample: SampleArguments,
    #[command(flatten)]
    folder: PluginFolder,
    /// Print one JSON object per line, one for each plugin
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = arguments.folder.resolve().map_err(BadConfig)?;
    let event = arguments.sample.read(&config)?;
    let routes = routes(&config.plugins, &config, &event).await?;
    unless_cut_off(print(&routes, arguments.json))?;
    if !arguments.json {
        let wanted = routes.iter().filter(|route| route.gets).count();
        let all = counted(routes.len(), "plugin");
        say!("{wanted} of {all} would get event {:?} of type {:?}", shown(&event.id), shown(&event.event_type));
    }
    Ok(())
}

/// The route of the event at one plugin.
struct PluginRoute {
    plugin: String,
    gets: bool,
    /// Short, stable name of the rule, for scripts.
    rule: &'static str,
    because: String,
    filter: Option<String>,
    subscription: Option<Subscription>,
    /// The current quiet hours, if there are any.
    quiet: Option<Spell>,
}

async fn routes(folder: &Path, config: &HostConfig, event: &Event) -> anyhow::Result<Vec<PluginRoute>> {
    let entries =
        scan(folder).map_err(|error| anyhow::anyhow!("cannot read the plugin folder {}: {error}", folder.display()))?;
    let loader = Loader::new(
        Engine::new()?,
        config.state_folder().as_deref(),
        HostServices::new(config)?,
        Some(Preview::new(true)),
    )?;
    let look = Look::new(event);
    let mut routes = Vec::new();
    for (name, entry) in entries {
        let no = |rule, because: String| PluginRoute {
            plugin: name.clone(),
            gets: false,
            rule,
            because,
            filter: None,
            subscription: None,
            quiet: None,
        };
        routes.push(match entry.load(&loader, &config.policies).await {
            Ok(Loaded::Plugin(plugin, _)) => route(&plugin, &look),
            Ok(Loaded::Off) => no("switched-off", "its toml switches it off".to_owned()),
            Err(problem) => no("not-loaded", format!("it does not load: {problem}")),
        });
    }
    Ok(routes)
}

fn route(plugin: &Plugin, look: &Look<'_>) -> PluginRoute {
    let verdict = verdict(plugin, look);
    let (rule, subscription, filter) = match &verdict {
        Verdict::Wanted { subscription, filter: Some(asked) } => ("filter", *subscription, Some(asked.filter)),
        Verdict::Wanted { subscription: None, filter: None } => ("every-event", None, None),
        Verdict::Wanted { subscription, filter: None } => ("subscription", *subscription, None),
        Verdict::NotSubscribed => ("subscription", None, None),
        Verdict::Filtered(asked) => ("filter", None, Some(asked.filter)),
        Verdict::AboutItself => ("about-itself", None, None),
    };
    let quiet = plugin.policies.throttle.quiet_hours.at(Timestamp::now());
    let quiet = Some(quiet).filter(|spell| spell.is_quiet && verdict.is_wanted());
    let mut because = because(plugin, &verdict);
    if let Some(spell) = &quiet {
        because = format!("{because}; it waits, for there are quiet hours until {}", spell.end());
    }
    PluginRoute {
        plugin: plugin.name.to_string(),
        gets: verdict.is_wanted(),
        rule,
        because,
        filter: filter.map(|filter| filter.text().to_owned()),
        subscription: subscription.cloned(),
        quiet,
    }
}

fn print(routes: &[PluginRoute], json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        for route in routes {
            let subscription = route.subscription.as_ref().map(|subscription| {
                json!({
                    "event_type": subscription.event_type,
                    "source": subscription.source,
                    "subject": subscription.subject,
                })
            });
            let line = json!({
                "plugin": route.plugin,
                "gets": route.gets,
                "rule": route.rule,
                "because": route.because,
                "subscription": subscription,
                "filter": route.filter,
                "quiet_until": route.quiet.as_ref().map(|spell| spell.until),
            });
            write_json(&mut out, &line)?;
        }
        return out.flush();
    }
    let row = |route: &PluginRoute| {
        let gets = if route.gets { "yes" } else { "no" };
        [shown(&route.plugin), gets.to_owned(), shown(&route.because)]
    };
    let rows: Vec<_> = routes.iter().map(row).collect();
    write_table(&mut out, HEADINGS, &rows, |_| Vec::new())?;
    out.flush()
}
