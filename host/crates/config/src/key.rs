//! A key is one setting that a file may have: its name, its meaning, and the values it takes.
//!
//! The reader asks for values by key only, so the keys it asked for are the complete list. `config schema`,
//! `config show`, `config example` and the environment variables all work from that [`Inventory`].

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// Describes a key to the reader. Its texts are whole clauses that begin in upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    /// The default value: strings without quotes, everything else as in TOML. A test compares it with the code.
    pub(super) default: Option<&'static str>,
    /// Describes the behaviour without the key, where no value would express it.
    pub(super) otherwise: Option<&'static str>,
    /// Example for the commented file, in the form of `default`.
    pub(super) example: Option<&'static str>,
    pub(super) choices: &'static [&'static str],
    /// The key must be present wherever its table is.
    pub(super) is_required: bool,
    /// The key is an alternative to another one; a file cannot have both.
    pub(super) is_instead: bool,
    /// A running host can adopt a new value.
    pub(super) is_live: bool,
    pub(super) privacy: Privacy,
    /// Name of the environment variable, where it does not follow from the path.
    pub(super) variable: Option<&'static str>,
}

/// Says which part of a value must not be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privacy {
    Open,
    /// The passwords in a broker's URLs are hidden.
    Url,
    /// The whole value is hidden.
    Whole,
}

pub(super) const fn key(name: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        doc,
        default: None,
        otherwise: None,
        example: None,
        choices: &[],
        is_required: false,
        is_instead: false,
        is_live: false,
        privacy: Privacy::Open,
        variable: None,
    }
}

impl Key {
    pub(super) const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    pub(super) const fn otherwise(self, otherwise: &'static str) -> Self {
        Self { otherwise: Some(otherwise), ..self }
    }

    pub(super) const fn example(self, example: &'static str) -> Self {
        Self { example: Some(example), ..self }
    }

    pub(super) const fn choices(self, choices: &'static [&'static str]) -> Self {
        Self { choices, ..self }
    }

    pub(super) const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    pub(super) const fn instead(self) -> Self {
        Self { is_instead: true, ..self }
    }

    pub(super) const fn live(self) -> Self {
        Self { is_live: true, ..self }
    }

    pub(super) const fn variable(self, variable: &'static str) -> Self {
        Self { variable: Some(variable), ..self }
    }

    pub(super) const fn private(self, privacy: Privacy) -> Self {
        Self { privacy, ..self }
    }
}

impl From<&'static str> for Key {
    fn from(name: &'static str) -> Self {
        key(name, "")
    }
}

/// The values that a key takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Texts,
    /// One string, or a list of strings.
    TextOrTexts,
    Path,
    Paths,
    Boolean,
    Number(Range<u64>),
    /// A number from 0 to 1.
    Ratio,
    Duration(Range<Duration>),
    Bytes(Range<usize>),
    Table,
    TextOrTable,
    /// An array of tables, `[[…]]`.
    Tables,
    /// Tables whose names the file chooses.
    NamedTables,
    /// A table with arbitrary content.
    Anything,
}

impl Kind {
    /// Whether the value is written in quotes.
    fn is_text(&self) -> bool {
        matches!(self, Self::Text | Self::Path | Self::Duration(_) | Self::Bytes(_))
    }

    /// Formats a default or an example as it would stand in a file.
    pub(super) fn toml(&self, text: &str) -> String {
        if self.is_text() { quoted(text) } else { text.to_owned() }
    }

    /// Formats a flag's or variable's text as TOML. Text that is no number stays a string, so that the reader reports
    /// which type it expected.
    pub(super) fn toml_of_text(&self, text: &str) -> String {
        match self {
            Self::Number(_) if text.trim().parse::<i64>().is_ok() => text.trim().to_owned(),
            Self::Ratio if text.trim().parse::<f64>().is_ok_and(f64::is_finite) => text.trim().to_owned(),
            Self::Boolean if matches!(text.trim(), "true" | "false") => text.trim().to_owned(),
            Self::Texts | Self::Paths => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                format!("[{}]", parts.map(quoted).collect::<Vec<_>>().join(", "))
            }
            _ => quoted(text),
        }
    }

    /// Formats a default or an example as JSON.
    pub(super) fn json(&self, text: &str) -> serde_json::Value {
        let table: Option<serde_json::Value> = toml::from_str(&format!("value = {}", self.toml(text))).ok();
        table.and_then(|mut table| Some(table.get_mut("value")?.take())).unwrap_or_default()
    }

    /// Describes the range of allowed values for people.
    pub(super) fn bounds(&self) -> Option<String> {
        let size = |bytes: usize| bytesize::ByteSize(bytes as u64).display().iec().to_string();
        match self {
            Self::Ratio => Some("From 0 to 1".to_owned()),
            Self::Number(range) => Some(format!("From {} to {}", range.start, range.end - 1)),
            Self::Duration(range) => Some(format!("From {} to {}", time(range.start), time(range.end))),
            Self::Bytes(range) => Some(format!("From {} to {}", size(range.start), size(range.end - 1))),
            _ => None,
        }
    }

    /// Whether this is a single value rather than a table.
    pub(super) fn is_value(&self) -> bool {
        !matches!(self, Self::Table | Self::Tables | Self::NamedTables | Self::Anything)
    }
}

/// Formats a duration: `1h 30m`, `365d`.
pub(super) fn time(duration: Duration) -> String {
    const DAY_SECONDS: u64 = 24 * 60 * 60;
    let seconds = duration.as_secs();
    if seconds > DAY_SECONDS && duration == Duration::from_secs(seconds / DAY_SECONDS * DAY_SECONDS) {
        return format!("{}d", seconds / DAY_SECONDS);
    }
    jiff::SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |duration| format!("{duration:#}"))
}

/// Quotes a text as a TOML string on one line.
pub(super) fn quoted(text: &str) -> String {
    // JSON's escapes are valid in TOML. DEL is the one character that JSON leaves as it is and TOML forbids.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A value that the file or an override sets.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) at: Range<usize>,
    /// As TOML on one line, as the host uses it: with full paths, without passwords.
    pub(super) shown: String,
    /// The raw value. It serves comparisons and must never be shown.
    pub(super) raw: String,
}

/// One key that the reader asked for, and its value.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyEntry {
    /// Prefix of the table that the key is in: empty, `mail.`, `subscriptions[].`, `secrets.*.`.
    pub(super) within: String,
    pub(super) key: Key,
    pub(super) kind: Kind,
    pub(super) written: Option<Written>,
}

impl KeyEntry {
    /// Returns the path of the key: `journal.age-max`.
    pub(super) fn path(&self) -> String {
        format!("{}{}", self.within, self.key.name)
    }

    /// Returns the name of the key's environment variable.
    pub(super) fn variable(&self) -> String {
        let of_path = || format!("NOTIFY_{}", self.path().to_uppercase().replace(['.', '-'], "_"));
        self.key.variable.map_or_else(of_path, str::to_owned)
    }
}

/// All keys that one kind of file may have, in the order in which the reader asks for them.
#[derive(Clone)]
pub(super) struct Inventory(pub(super) Vec<KeyEntry>);

impl Inventory {
    /// Returns the keys of one table.
    pub(super) fn within<'i>(&'i self, within: &'i str) -> impl Iterator<Item = &'i KeyEntry> {
        self.0.iter().filter(move |asked| asked.within == within)
    }

    pub(super) fn get(&self, path: &str) -> Option<&KeyEntry> {
        self.0.iter().find(|asked| asked.path() == path)
    }

    /// Returns all keys that hold a single value and have one fixed path.
    pub(super) fn values(&self) -> impl Iterator<Item = &KeyEntry> {
        let either = self.0.iter().filter(|asked| asked.kind == Kind::TextOrTable);
        let either: BTreeSet<_> = either.map(|asked| format!("{}.", asked.path())).collect();
        self.0.iter().filter(move |asked| {
            asked.kind.is_value() && !asked.within.contains(['[', '*']) && !either.contains(&asked.within)
        })
    }
}
