//! The plugin folder: each `NAME.wasm` is a plugin, and `NAME.toml` beside it says how to run it.

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::config::{PluginConfig, Policies};
use crate::plugin::{Loader, Plugin};

/// It becomes a part of queue names and log lines.
const NAME_BYTES_MAX: usize = 64;

/// Loads every plugin in the folder, in the order of their names. A bad one is reported and
/// left out.
pub(crate) async fn load_folder(loader: &Loader, folder: &Path, policies: &Policies) -> Vec<(PathBuf, Plugin)> {
    let mut plugins = Vec::new();
    let files = match wasm_files(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            warn!("there is no plugin folder {}: make it, and put plugins into it", folder.display());
            return plugins;
        }
        Err(error) => {
            warn!("cannot read the plugin folder {}: {error}", folder.display());
            return plugins;
        }
    };
    for file in files {
        match load_file(loader, &file, policies).await {
            Ok(Some(plugin)) => {
                info!(plugin = %plugin.name, version = plugin.version, "loaded: {}", plugin.description);
                plugins.push((file, plugin));
            }
            Ok(None) => info!("{} is switched off by its toml", file.display()),
            Err(problem) => warn!("{problem}; it is left out"),
        }
    }
    plugins
}

/// The names of the plugins in the folder, without loading them; less those that are switched off.
pub(crate) fn plugin_names(folder: &Path, policies: &Policies) -> std::io::Result<Vec<String>> {
    // One whose toml is wrong is wanted all the same.
    let is_off =
        |file: &Path| PluginConfig::read(&file.with_extension("toml"), policies).is_ok_and(|config| !config.enabled);
    let files = wasm_files(folder)?.into_iter().filter(|file| !is_off(file));
    let names = files.filter_map(|file| file.file_stem()?.to_str().map(str::to_owned));
    Ok(names.filter(|name| is_plugin_name(name)).collect())
}

/// Loads one; `None` if its toml switches it off. The error is a sentence that names the file.
pub(crate) async fn load_file(loader: &Loader, file: &Path, policies: &Policies) -> Result<Option<Plugin>, String> {
    let in_file = |problem: &dyn std::fmt::Display| format!("{}: {problem}", file.display());
    let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    if !is_plugin_name(name) {
        return Err(in_file(&"a plugin's file name is made of a-z, 0-9 and -, up to 64 of them; rename it"));
    }
    // Its errors name the toml and the line.
    let config = PluginConfig::read(&file.with_extension("toml"), policies)?;
    if !config.enabled {
        return Ok(None);
    }
    loader.load(name, file, config).await.map(Some).map_err(|error| in_file(&format_args!("{error:#}")))
}

/// Whether a plugin may be called so.
fn is_plugin_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed)
}

fn wasm_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "wasm") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
