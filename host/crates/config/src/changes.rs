//! What another reading of the same layers changes: what a running host can take over, and what needs a restart.

use crate::HostConfig;
use crate::effective::default_of;
use crate::key::{Asked, Inventory, Written};
use crate::layers::Resolved;

/// What another reading of the same layers changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What a running host can take over: the path, and from what to what.
    pub live: Vec<String>,
    /// What needs a restart.
    pub restart: Vec<String>,
}

impl Resolved {
    /// What is different in a later reading.
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
            // A password alone, say, that nobody gets to see.
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

/// To write a default down changes nothing.
fn same(known: &Asked, old: Option<&Written>, new: Option<&Written>) -> bool {
    let default = known.key.default.map(|default| known.kind.toml(default));
    let of = |written: Option<&Written>| match written {
        Some(written) => Some((written.raw.clone(), written.shown.clone())),
        None => default.clone().map(|default| (default.clone(), default)),
    };
    of(old) == of(new)
}
