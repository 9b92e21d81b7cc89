//! The operator's settings for a plugin, `[config]`, and where in the file each of them stands.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the plugin may read, and what a fault in it is told by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub values: serde_json::Map<String, serde_json::Value>,
    pub(super) file: PathBuf,
    /// By JSON pointer; "" is the table itself.
    pub(super) lines: BTreeMap<String, usize>,
}

impl Settings {
    /// `plugins/email.toml:7`: of a value, or of the nearest one around it that is there.
    pub fn place(&self, pointer: &str) -> String {
        let around = std::iter::successors(Some(pointer), |path| path.rsplit_once('/').map(|(around, _)| around));
        let line = around.into_iter().find_map(|path| self.lines.get(path));
        let file = self.file.display();
        line.map_or_else(|| file.to_string(), |line| format!("{file}:{line}"))
    }
}

/// `config.recipients[0]`.
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
