//! Commands that send the same request to every running host.

use std::path::Path;

use anyhow::bail;
use supervisor::control::{ANSWERED_OTHERWISE, Answer, Hosts, Reply, Request, ask};

use crate::cli::command::say;

pub(super) async fn pause(state: &Path, plugins: &Path, plugin: String) -> anyhow::Result<()> {
    report(ask(state, plugins, &Request::Pause { plugin }).await?)
}

pub(super) async fn resume(state: &Path, plugins: &Path, plugin: String) -> anyhow::Result<()> {
    report(ask(state, plugins, &Request::Resume { plugin }).await?)
}

pub(super) async fn reload(state: &Path, plugins: &Path, plugin: String) -> anyhow::Result<()> {
    report(ask(state, plugins, &Request::Reload { plugin }).await?)
}

/// Makes the running hosts reload a plugin whose files have just changed.
pub(super) async fn reload_if_running(state: &Path, plugin: &str) -> anyhow::Result<()> {
    let hosts = Hosts::find(state).await;
    if hosts.count() == 0 {
        say!("no host runs with this plugin folder: it takes effect when one starts");
        return Ok(());
    }
    report(hosts.ask(&Request::Reload { plugin: plugin.to_owned() }).await)
}

/// Prints the answers, equal ones once. Fails if any host failed.
fn report(answers: Vec<Answer>) -> anyhow::Result<()> {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for answer in answers {
        let (sentences, sentence) = match answer {
            Ok(Reply::Done(sentence)) => (&mut done, sentence),
            Ok(Reply::Plugins { .. } | Reply::Reloaded(_) | Reply::Refused(_)) => {
                (&mut failed, ANSWERED_OTHERWISE.to_owned())
            }
            Err(problem) => (&mut failed, problem),
        };
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    for sentence in done {
        say!("{sentence}");
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}
