//! The operator's settings for a plugin, `[config]`, and the line of each of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The values that the plugin can read, and where they stand, for faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub values: serde_json::Map<String, serde_json::Value>,
    pub(super) file: PathBuf,
    /// Line numbers by JSON pointer; "" is the table itself.
    pub(super) lines: BTreeMap<String, usize>,
}

impl Settings {
    /// Returns the place of a value, or of the nearest enclosing one that is present: `plugins/email.toml:7`.
    pub fn place(&self, pointer: &str) -> String {
        let around = std::iter::successors(Some(pointer), |path| path.rsplit_once('/').map(|(around, _)| around));
        let line = around.into_iter().find_map(|path| self.lines.get(path));
        let file = self.file.display();
        line.map_or_else(|| file.to_string(), |line| format!("{file}:{line}"))
    }
}

/// Converts a JSON pointer to a key: `config.recipients[0]`.
pub(crate) fn key_of(pointer: &str) -> String {
    let mut key = "config".to_owned();
    for part in pointer.split('/').skip(1) {
        if part.bytes().all(|byte| byte.is_ascii_digit()) && !part.is_empty() {
            key = format!("{key}[{part}]");
        } else {
            key = format!("{key}.{}", part.replace("~1", "/").replace("~0", "~"));
        }
    }
    key
}
