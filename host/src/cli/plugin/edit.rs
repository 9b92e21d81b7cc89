//! `plugin enable` and `plugin disable`: change one key of a plugin's toml. The rest stays as its author wrote it.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use config::PluginConfig;
use sandbox::{is_plugin_name, look};
use state::write_whole;
use toml_edit::{DocumentMut, Item, Value};

use crate::cli::plugin::tell::reload_if_running;

const KEY: &str = "enabled";

pub(super) async fn switch(state: &Path, plugins: &Path, name: &str, enabled: bool) -> anyhow::Result<()> {
    let folder = plugins.display();
    if !is_plugin_name(name) || look(plugins, name).is_none() {
        bail!("there is no plugin {name:?} in {folder}: no {name}.wasm, and no {name}.toml that names a file");
    }
    let toml = plugins.join(format!("{name}.toml"));
    let old = PluginConfig::text(&toml).map_err(anyhow::Error::msg)?.unwrap_or_default();
    let new = with_key(&old, enabled).map_err(|problem| anyhow!("{}: {problem}", toml.display()))?;
    if new != old {
        write_whole(&toml, new.as_bytes()).with_context(|| format!("cannot write {}", toml.display()))?;
    }
    reload_if_running(state, name).await
}

fn with_key(text: &str, enabled: bool) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    match document.get_mut(KEY) {
        Some(Item::Value(value)) => {
            // Keep the comment after the value.
            let decor = value.decor().clone();
            *value = Value::from(enabled);
            *value.decor_mut() = decor;
        }
        Some(_) => return Err(format!("{KEY} is a table")),
        // Enabled is the default.
        None if enabled => {}
        None => document[KEY] = toml_edit::value(enabled),
    }
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_key_changes() {
        let check = |old, enabled, new| assert_eq!(with_key(old, enabled).unwrap(), new);
        check("", false, "enabled = false\n");
        check("", true, "");
        check("# mine\nenabled = true # for now\n[config]\n", false, "# mine\nenabled = false # for now\n[config]\n");
        check(
            "wasm = \"a.wasm\"\n\n[config]\nx = 1 # one\n",
            false,
            "wasm = \"a.wasm\"\nenabled = false\n\n[config]\nx = 1 # one\n",
        );
        assert_eq!(with_key("enabled = ", true).unwrap_err().lines().count(), 1);
        assert_eq!(with_key("[enabled]", true).unwrap_err(), "enabled is a table");
    }
}
