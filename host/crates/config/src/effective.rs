//! The effective settings: each key's value, and where it comes from.

use std::fmt::{self, Display};
use std::path::Path;

use broker::BrokerUrl;

use crate::HostConfig;
use crate::key::{KeyEntry, Kind, quoted};
use crate::layers::Resolved;
use crate::source_location::SourceLocation;

/// One key with its effective value.
pub struct Effective {
    pub path: String,
    /// As TOML on one line, without passwords. The error describes what applies if there is no value.
    pub value: Result<String, &'static str>,
    pub source: ValueSource,
}

impl Effective {
    pub fn json(&self) -> serde_json::Value {
        let table: Option<serde_json::Value> =
            self.value.as_ref().ok().and_then(|value| toml::from_str(&format!("value = {value}")).ok());
        table.and_then(|mut table| Some(table.get_mut("value")?.take())).unwrap_or_default()
    }
}

pub enum ValueSource {
    Default,
    Place(SourceLocation),
}

impl Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Place(place) => place.fmt(f),
        }
    }
}

impl Resolved {
    /// Returns every key that holds a single value, in the order of the commented file.
    pub fn effective(&self) -> Vec<Effective> {
        let document = self.sources.document();
        let known = HostConfig::keys();
        let is_written = |table: &KeyEntry| {
            let within = format!("{}.", table.path());
            self.asked.0.iter().any(|asked| asked.within.starts_with(&within))
        };
        // If such an optional table is absent, its defaults do not apply.
        let absent: Vec<_> =
            known.0.iter().filter(|asked| asked.kind == Kind::Table && asked.key.otherwise.is_some()).collect();
        let absent: Vec<_> = absent.into_iter().filter(|table| !is_written(table)).collect();
        let holds =
            |asked: &&KeyEntry| !absent.iter().any(|table| asked.within.starts_with(&format!("{}.", table.path())));
        let mut all: Vec<_> = known
            .values()
            .chain(absent.iter().copied())
            .filter(holds)
            .filter_map(|known| {
                let asked = self.asked.get(&known.path());
                let written = asked.and_then(|asked| asked.written.as_ref());
                let source = written
                    .map_or(ValueSource::Default, |written| ValueSource::Place(document.place(written.at.start)));
                let value = match written {
                    Some(written) => Ok(written.shown.clone()),
                    None => default_of(known)?,
                };
                Some(Effective { path: known.path(), value, source })
            })
            .collect();
        all.sort_by_key(|one| one.path.contains('.'));
        all
    }
}

/// Returns the default of a key. `None`: there is none worth showing.
pub(super) fn default_of(known: &KeyEntry) -> Option<Result<String, &'static str>> {
    let shown = |path: &Path| Ok(quoted(&path.display().to_string()));
    match &*known.path() {
        "broker" => BrokerUrl::default_for_user().map(|url| Ok(quoted(&url.to_string()))),
        "state" => state::default_for_user().map(|path| shown(&path)),
        _ => {
            let default = known.key.default.map(|default| Ok(known.kind.toml(default)));
            default.or_else(|| known.key.otherwise.map(Err))
        }
    }
}
