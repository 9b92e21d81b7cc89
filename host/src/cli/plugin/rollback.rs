//! `plugin rollback`: restores a version of a plugin that worked before.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use config::PluginConfig;
use sandbox::{Loader, is_plugin_name, look, scan};
use state::digest::Digest;
use state::write_whole;
use supervisor::reconcile::{Good, Versions};

use crate::cli::command::say;
use crate::cli::plugin::tell::reload_if_running;

pub(super) async fn rollback(state: &Path, plugins: &Path, name: &str, dry_run: bool) -> anyhow::Result<()> {
    if !is_plugin_name(name) {
        bail!("{name:?} is no name of a plugin: that is made of a-z, 0-9 and -");
    }
    let versions = Versions::of(state);
    let all = versions.of_plugin(name).context("the list of the versions that worked cannot be read")?;
    let now = InstalledFiles::of(plugins, name);
    let Some(at) = target(&all, |good| now.is(good)) else {
        bail!("there is no earlier version of {name} that worked on this machine");
    };
    let good = &all[at];
    let content = versions.content(good).context("the version that was kept cannot be read")?;
    let wasm = plugins.join(&good.wasm);
    say!(
        "{}: {} with its toml as of {} (sha256 {}){}",
        if dry_run { "would put back" } else { "putting back" },
        format_args!("{name} {}", good.version),
        good.since.strftime("%F %T UTC"),
        good.sha256.short(),
        shared_with(plugins, &wasm, name)
    );
    if dry_run {
        return Ok(());
    }
    let toml = plugins.join(format!("{name}.toml"));
    if let Some(text) = now.toml.filter(|text| all.iter().all(|good| good.toml.as_ref() != Some(text))) {
        // The current toml was never saved with a version, so keep a copy.
        let kept = plugins.join(format!("{name}.toml.replaced"));
        put(&kept, text.as_bytes())?;
        say!("what is in {name}.toml now is kept in {}", kept.display());
    }
    put(&wasm, &content)?;
    match &good.toml {
        Some(text) => put(&toml, text.as_bytes())?,
        None => match fs::remove_file(&toml) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", toml.display()));
            }
            Ok(()) | Err(_) => {}
        },
    }
    // Forget the versions that were rolled back from, so that the next rollback goes further back.
    versions.truncate(name, at + 1).context("cannot forget the version that was rolled back")?;
    reload_if_running(state, name).await
}

/// The plugin's files as they are in the folder now.
struct InstalledFiles {
    sha256: Option<Digest>,
    wasm: Option<std::path::PathBuf>,
    toml: Option<String>,
}

impl InstalledFiles {
    fn of(plugins: &Path, name: &str) -> Self {
        let entry = look(plugins, name);
        let wasm = entry.as_ref().map(|entry| entry.wasm.clone());
        Self {
            sha256: wasm.as_ref().and_then(|wasm| Some(Digest::of(&Loader::read(wasm).ok()?))),
            toml: PluginConfig::text(&plugins.join(format!("{name}.toml"))).ok().flatten(),
            wasm: wasm.and_then(|wasm| Some(wasm.strip_prefix(plugins).ok()?.to_owned())),
        }
    }

    fn is(&self, good: &Good) -> bool {
        self.sha256 == Some(good.sha256) && self.toml == good.toml && self.wasm.as_ref() == Some(&good.wasm)
    }
}

/// Chooses the version to restore: the last one that worked, or the one before if the last is in place.
fn target(all: &[Good], is_now: impl Fn(&Good) -> bool) -> Option<usize> {
    let last = all.len().checked_sub(1)?;
    if is_now(&all[last]) { last.checked_sub(1) } else { Some(last) }
}

/// Names the other plugins that run the same file.
fn shared_with(plugins: &Path, wasm: &Path, name: &str) -> String {
    let entries = scan(plugins).unwrap_or_default();
    let others: Vec<_> = entries
        .into_values()
        .filter(|entry| entry.wasm == wasm && entry.name != name)
        .map(|entry| entry.name)
        .collect();
    if others.is_empty() { String::new() } else { format!("; the same file is run by {}", others.join(", ")) }
}

fn put(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    write_whole(path, content).with_context(|| format!("cannot write {}", path.display()))
}
