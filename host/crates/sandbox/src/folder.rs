//! The plugin folder. Each `NAME.wasm` is a plugin, and `NAME.toml` beside it configures it. A toml may name another
//! wasm file, so that one file serves under several names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use config::{PluginConfig, Policies, WasmPath};
use state::digest::Digest;
use state::file::apart;

use crate::{LoadError, Loader, Plugin, is_transient};

/// Maximum bytes of a plugin's name, which becomes part of queue names and log lines.
const NAME_BYTES_MAX: usize = 64;

/// The files in the folder under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub toml: PathBuf,
    pub wasm: PathBuf,
    /// Changes whenever the files change.
    pub(crate) stamp: [Option<Stamp>; 2],
}

/// Identifies a version of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// The change time. A copy may preserve the modification time, but not this.
    changed: (i64, i64),
}

impl Stamp {
    /// Returns the stamp of a file, or `None` if there is no file that can be read.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The files of a plugin as they were read.
#[derive(Clone, Debug)]
pub struct Files {
    pub name: String,
    /// The path that errors in the settings refer to.
    pub toml_path: PathBuf,
    /// The path that errors in the plugin refer to.
    pub wasm_path: PathBuf,
    pub toml: Option<String>,
    pub content: Vec<u8>,
    pub digest: Digest,
}

/// A loaded plugin, or the fact that it is disabled.
pub enum Loaded {
    Plugin(Box<Plugin>, Files),
    /// Its toml disables it.
    Off,
}

/// Returns all entries of the folder, by name.
pub fn scan(folder: &Path) -> io::Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = path.extension().and_then(|extension| extension.to_str());
        if is_hidden || !matches!(extension, Some("wasm" | "toml")) {
            continue;
        }
        let Some(name) = path.file_stem().map(|name| name.to_string_lossy().into_owned()) else { continue };
        if entries.contains_key(&name) {
            continue;
        }
        if let Some(entry) = look(folder, &name) {
            entries.insert(name, entry);
        }
    }
    Ok(entries)
}

/// Returns the names of the tomls in the folder that have no plugin yet.
pub fn lone_tomls(folder: &Path, entries: &BTreeMap<String, Entry>) -> BTreeSet<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let tomls = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let names = tomls.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    names.filter(|name| !name.starts_with('.') && !entries.contains_key(name)).collect()
}

/// Returns the entry with this name, or `None` if there is no plugin.
pub fn look(folder: &Path, name: &str) -> Option<Entry> {
    let toml = folder.join(format!("{name}.toml"));
    let own = folder.join(format!("{name}.wasm"));
    let wasm = match named_file(&toml) {
        Named::File(WasmPath(other)) => folder.join(other),
        // A file that cannot be examined must not be taken for removed. Loading it will report why.
        Named::Nothing if own.try_exists().unwrap_or(true) => own,
        // A toml alone, which names no other file, waits for its plugin.
        Named::Nothing => return None,
        // Loading it will report what is wrong with the toml.
        Named::Unreadable => own,
    };
    let stamp = [Stamp::of(&toml), Stamp::of(&wasm)];
    Some(Entry { name: name.to_owned(), toml, wasm, stamp })
}

/// The wasm file that a toml names.
enum Named {
    File(WasmPath),
    Nothing,
    Unreadable,
}

fn named_file(toml: &Path) -> Named {
    let text = match PluginConfig::text(toml) {
        Ok(Some(text)) => text,
        Ok(None) => return Named::Nothing,
        Err(_) => return Named::Unreadable,
    };
    let Ok(table) = text.parse::<toml::Table>() else { return Named::Unreadable };
    let file = table.get("wasm").and_then(toml::Value::as_str);
    file.map_or(Named::Nothing, |file| file.parse().map_or(Named::Unreadable, Named::File))
}

/// Returns the names of the plugins in the folder without loading them, except for disabled ones.
pub fn plugin_names(folder: &Path, policies: &Policies) -> io::Result<Vec<String>> {
    // A plugin with a faulty toml counts as enabled.
    let is_off = |toml: &Path| PluginConfig::read(toml, policies).is_ok_and(|config| !config.enabled);
    let entries = scan(folder)?.into_values().filter(|entry| is_plugin_name(&entry.name) && !is_off(&entry.toml));
    Ok(entries.map(|entry| entry.name).collect())
}

impl Entry {
    /// Returns whether the files have changed, or are just being written, since they were examined.
    pub fn has_changed(&self) -> bool {
        [Stamp::of(&self.toml), Stamp::of(&self.wasm)] != self.stamp
    }

    /// Returns the time since a file was last changed, or `None` if the clock puts that into the future.
    pub fn age(&self) -> Option<std::time::Duration> {
        let newest =
            [&self.toml, &self.wasm].into_iter().filter_map(|path| fs::metadata(path).ok()?.modified().ok()).max();
        SystemTime::now().duration_since(newest?).ok()
    }

    /// Loads the plugin. The error is a sentence that names the file.
    pub async fn load(&self, loader: &Loader, policies: &Policies) -> Result<Loaded, LoadError> {
        let (entry, policies) = (self.clone(), policies.clone());
        let Some((files, config)) = apart(move || entry.read(&policies)).await? else { return Ok(Loaded::Off) };
        let plugin = files.load_with(loader, config).await?;
        Ok(Loaded::Plugin(Box::new(plugin), files))
    }

    /// Reads the files. Returns `None` if the plugin is disabled.
    fn read(&self, policies: &Policies) -> Result<Option<(Files, PluginConfig)>, LoadError> {
        if !is_plugin_name(&self.name) {
            let problem = "a plugin's file name is made of a-z, 0-9 and -, up to 64 of them; rename it";
            return Err(LoadError::permanent(problem).about(self.wasm.display()));
        }
        let toml = PluginConfig::text(&self.toml).map_err(|problem| {
            if is_transient(&problem.error) { LoadError::transient(problem) } else { LoadError::permanent(problem) }
        })?;
        let config = PluginConfig::of_text(&self.toml, toml.as_deref(), policies).map_err(LoadError::Settings)?;
        if !config.enabled {
            return Ok(None);
        }
        let content = Loader::read(&self.wasm).map_err(|error| error.about(self.wasm.display()))?;
        let files = Files {
            name: self.name.clone(),
            toml_path: self.toml.clone(),
            wasm_path: self.wasm.clone(),
            toml,
            digest: Digest::of(&content),
            content,
        };
        Ok(Some((files, config)))
    }
}

impl Files {
    /// Loads files that were read before.
    pub async fn load(&self, loader: &Loader, policies: &Policies) -> Result<Plugin, LoadError> {
        let config = PluginConfig::of_text(&self.toml_path, self.toml.as_deref(), policies);
        let config = config.map_err(LoadError::Settings)?;
        self.load_with(loader, config).await
    }

    async fn load_with(&self, loader: &Loader, config: PluginConfig) -> Result<Plugin, LoadError> {
        let plugin = loader.load_content(&self.name, &self.content, self.digest, config).await;
        plugin.map_err(|error| error.about(self.wasm_path.display()))
    }
}

/// Returns whether this is a valid plugin name.
pub fn is_plugin_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    #[test]
    fn plugins_are_found_by_their_files_and_by_tomls_that_name_one() {
        let folder = folder(&[
            ("email.wasm", ""),
            ("email.toml", "enabled = false"),
            ("email-sales.toml", "wasm = \"email.wasm\""),
            ("waits.toml", "[config]"),
            ("broken.toml", "wasm = "),
            ("half.wasm", ""),
            ("half.toml", "wasm = "),
            (".hidden.wasm", ""),
            ("notes.txt", ""),
            ("device.toml", "wasm = \"/dev/zero\""),
        ]);
        let found = scan(folder.path()).unwrap();
        let wasm = |name: &str| found[name].wasm.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(lone_tomls(folder.path(), &found), BTreeSet::from(["waits".to_owned()]));
        assert_eq!(found.keys().collect::<Vec<_>>(), ["broken", "device", "email", "email-sales", "half"]);
        assert_eq!(wasm("device"), "device.wasm", "what lies elsewhere is not looked at");
        assert_eq!(
            (wasm("email"), wasm("email-sales"), wasm("half")),
            ("email.wasm".into(), "email.wasm".into(), "half.wasm".into())
        );
        assert_eq!(
            plugin_names(folder.path(), &Policies::default()).unwrap(),
            ["broken", "device", "email-sales", "half"]
        );
    }

    #[test]
    fn a_stamp_changes_with_either_file_and_with_what_replaces_it() {
        let folder = folder(&[("a.wasm", "1")]);
        let entry = look(folder.path(), "a").unwrap();
        assert!(!entry.has_changed());
        fs::write(folder.path().join("a.toml"), "").unwrap();
        assert!(entry.has_changed());
        let entry = look(folder.path(), "a").unwrap();
        // The new file has the same length and the old modification time.
        let (old, new) = (folder.path().join("a.wasm"), folder.path().join("b"));
        let modified = fs::metadata(&old).unwrap().modified().unwrap();
        fs::write(&new, "2").unwrap();
        fs::File::options().write(true).open(&new).unwrap().set_modified(modified).unwrap();
        fs::rename(&new, &old).unwrap();
        assert!(entry.has_changed());
    }
}
