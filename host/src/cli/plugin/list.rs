//! `plugin list`: shows the plugins of the running hosts and their states.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::bail;
use event::text::shown;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use supervisor::control::{PluginReport, PluginState};

use crate::cli::command::{say, unless_cut_off, write_json, write_table};
use crate::cli::hosts::Hosts;

const HEADINGS: [&str; 5] = ["NAME", "VERSION", "STATE", "IN FLIGHT", "DESCRIPTION"];

/// The plugins of one host.
#[derive(Deserialize)]
struct HostPlugins {
    process: u32,
    plugins: Vec<PluginReport>,
}

pub(super) async fn list(state: &Path, plugins: &Path, json: bool) -> anyhow::Result<()> {
    let (mut hosts, mut failed) = (Vec::new(), Vec::new());
    for answer in Hosts::find_some(state, plugins).await?.ask::<HostPlugins>(Method::GET, "plugins").await {
        match answer {
            Ok(host) => hosts.push(host),
            Err(refusal) => failed.push(refusal.sentence),
        }
    }
    unless_cut_off(if json { print_json(&hosts) } else { print(&hosts) })?;
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    if !json && hosts.iter().all(|host| host.plugins.is_empty()) {
        say!("the host has no plugin: put one into {}", plugins.display());
    }
    Ok(())
}

fn print_json(hosts: &[HostPlugins]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for HostPlugins { process, plugins } in hosts {
        for plugin in plugins {
            let mut line = json!(plugin);
            line["process"] = json!(process);
            write_json(&mut out, &line)?;
        }
    }
    Ok(())
}

fn print(hosts: &[HostPlugins]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for HostPlugins { process, plugins } in hosts {
        if hosts.len() > 1 {
            writeln!(out, "host with process id {process}:")?;
        }
        let rows: Vec<_> = plugins.iter().map(row).collect();
        write_table(&mut out, HEADINGS, &rows, |at| below(&plugins[at]))?;
    }
    Ok(())
}

/// Returns the lines below a plugin's row: problems, and what it waits for.
fn below(plugin: &PluginReport) -> Vec<String> {
    let problem = plugin.problem.as_deref().unwrap_or_default().lines().map(|line| format!("  {}", shown(line)));
    let again = plugin.tried_again_at.map(|at| format!("  tried again at {}", at.strftime("%F %T UTC")));
    let failure = match plugin.state {
        PluginState::Failing | PluginState::Misconfigured => plugin.last_failure.as_ref(),
        _ => None,
    };
    let waits = match plugin.state {
        PluginState::Quiet | PluginState::RateLimited | PluginState::Waiting => plugin.waits_for.as_ref(),
        _ => None,
    };
    let failure = failure.map(|failure| format!("  last failure: {}", shown(failure)));
    problem.chain(again).chain(failure).chain(waits.map(|reason| format!("  {}", shown(reason)))).collect()
}

fn row(plugin: &PluginReport) -> [String; 5] {
    let text = |text: &Option<String>| shown(text.as_deref().unwrap_or("-"));
    [
        shown(&plugin.name),
        text(&plugin.version),
        plugin.state.as_str().to_owned(),
        plugin.in_flight.to_string(),
        text(&plugin.description),
    ]
}
