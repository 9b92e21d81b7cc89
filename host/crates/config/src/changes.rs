//! Compares two readings of the same layers: which changes a running host can adopt, and which need a restart.

use crate::HostConfig;
use crate::effective::default_of;
use crate::key::{Inventory, KeyEntry, Written};
use crate::layers::Resolved;

/// The differences between two readings of the same layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changes that a running host can adopt: the path, then the old and the new value.
    pub live: Vec<String>,
    /// Changes that need a restart.
    pub restart: Vec<String>,
}

impl Resolved {
    /// Compares these settings with a later reading.
    pub fn changes(&self, later: &Self) -> Changes {
        let known = HostConfig::keys();
        let mut changes = Changes::default();
        for known in known.values() {
            let path = known.path();
            let (old, new) = (written(&self.asked, &path), written(&later.asked, &path));
            if same(known, old, new) {
                continue;
            }
            let shown = |written: Option<&Written>| match written {
                Some(written) => written.shown.clone(),
                None => default_of(known).and_then(Result::ok).unwrap_or_else(|| "not set".to_owned()),
            };
            let (old, new) = (shown(old), shown(new));
            // Only a hidden part differs, such as a password.
            let change = if old == new { path.clone() } else { format!("{path} ({old} → {new})") };
            if known.key.is_live {
                changes.live.push(change);
            } else {
                changes.restart.push(change);
            }
        }
        changes
    }
}

fn written<'i>(asked: &'i Inventory, path: &str) -> Option<&'i Written> {
    asked.get(path).and_then(|asked| asked.written.as_ref())
}

/// Whether two values are the same. Writing a default down is not a change.
fn same(known: &KeyEntry, old: Option<&Written>, new: Option<&Written>) -> bool {
    let default = known.key.default.map(|default| known.kind.toml(default));
    let of = |written: Option<&Written>| match written {
        Some(written) => Some((written.raw.clone(), written.shown.clone())),
        None => default.clone().map(|default| (default.clone(), default)),
    };
    of(old) == of(new)
}
