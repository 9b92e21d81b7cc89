//! Commands that perform the same operation in every running host.

use std::path::Path;

use anyhow::bail;
use http::Method;
use serde::Deserialize;
use supervisor::control::check_name;

use crate::cli::command::say;
use crate::cli::hosts::Hosts;

#[derive(Deserialize)]
struct Done {
    done: String,
}

/// Makes the running hosts perform the operation. `action` is its name in the API.
pub(super) async fn tell(state: &Path, plugins: &Path, action: &str, plugin: &str) -> anyhow::Result<()> {
    report(Hosts::find_some(state, plugins).await?, action, plugin).await
}

/// Makes the running hosts reload a plugin whose files have just changed.
pub(super) async fn reload_if_running(state: &Path, plugin: &str) -> anyhow::Result<()> {
    let hosts = Hosts::find(state).await;
    if hosts.count() == 0 {
        say!("no host runs with this plugin folder: it takes effect when one starts");
        return Ok(());
    }
    report(hosts, "reload", plugin).await
}

/// Performs the operation and prints the answers, equal ones once. Fails if any host failed.
async fn report(hosts: Hosts, action: &str, plugin: &str) -> anyhow::Result<()> {
    // A name that passes needs no escaping in the path.
    check_name(plugin).map_err(anyhow::Error::msg)?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for answer in hosts.ask(Method::POST, &format!("plugins/{plugin}/{action}")).await {
        let (sentences, sentence) = match answer {
            Ok(Done { done: sentence }) => (&mut done, sentence),
            Err(refusal) => (&mut failed, refusal.sentence),
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
