//! A key is one thing that a file may say: its name, what it means, and which values it takes.
//!
//! The reader asks for values by keys, and by nothing else. So what it asked for is the one list of all keys: what
//! `config schema`, `config show`, `config example` and the environment's variables know is an [`Inventory`].

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// What the reader is told of a key. Its texts are whole clauses, and begin in upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    /// What it is when nobody says it: a text as it is, all else as in TOML. A test holds it against the code.
    pub(super) default: Option<&'static str>,
    /// What holds when nobody says it, where there is no such value.
    pub(super) otherwise: Option<&'static str>,
    /// For the commented file, in the same form.
    pub(super) example: Option<&'static str>,
    pub(super) choices: &'static [&'static str],
    /// Wherever its table is, it must be.
    pub(super) is_required: bool,
    /// It stands for another one, and cannot be beside that.
    pub(super) is_instead: bool,
    /// A running host can take another value.
    pub(super) is_live: bool,
    pub(super) privacy: Privacy,
    /// What the environment calls it, if not by its path.
    pub(super) variable: Option<&'static str>,
}

/// What of a value nobody gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privacy {
    Open,
    /// The passwords of a broker's URLs.
    Url,
    /// Whatever stands there.
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

/// Which values a key takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Texts,
    /// One text, or a list of them.
    TextOrTexts,
    Path,
    Paths,
    Boolean,
    Number(Range<u64>),
    /// From 0 to 1.
    Ratio,
    Duration(Range<Duration>),
    Bytes(Range<usize>),
    Table,
    TextOrTable,
    /// `[[…]]`.
    Tables,
    /// Tables whose names the file chooses.
    NamedTables,
    /// A table of anything.
    Anything,
}

impl Kind {
    /// Whether it is written in quotes.
    fn is_text(&self) -> bool {
        matches!(self, Self::Text | Self::Path | Self::Duration(_) | Self::Bytes(_))
    }

    /// A default or an example, as it stands in a file.
    pub(super) fn toml(&self, text: &str) -> String {
        if self.is_text() { quoted(text) } else { text.to_owned() }
    }

    /// A text from elsewhere than a file, as it would stand in one. What is no number stays a text, so that the
    /// reader says what it expected.
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

    /// The same, in JSON.
    pub(super) fn json(&self, text: &str) -> serde_json::Value {
        let table: Option<serde_json::Value> = toml::from_str(&format!("value = {}", self.toml(text))).ok();
        table.and_then(|mut table| Some(table.get_mut("value")?.take())).unwrap_or_default()
    }

    /// From where to where a value may be, for people.
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

    /// Whether it is a value, and no table.
    pub(super) fn is_value(&self) -> bool {
        !matches!(self, Self::Table | Self::Tables | Self::NamedTables | Self::Anything)
    }
}

/// `1h 30m`, `365d`.
pub(super) fn time(duration: Duration) -> String {
    const DAY_SECONDS: u64 = 24 * 60 * 60;
    let seconds = duration.as_secs();
    if seconds > DAY_SECONDS && duration == Duration::from_secs(seconds / DAY_SECONDS * DAY_SECONDS) {
        return format!("{}d", seconds / DAY_SECONDS);
    }
    jiff::SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{duration:?}"), |duration| format!("{duration:#}"))
}

/// On one line, whatever is in it.
pub(super) fn quoted(text: &str) -> String {
    // TOML reads what JSON escapes, and does not want this one as it is.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// What stands in the file, or above it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) at: Range<usize>,
    /// As TOML on one line, as the host takes it: paths whole, passwords left out.
    pub(super) shown: String,
    /// To compare, and never to be shown.
    pub(super) raw: String,
}

/// A key that the reader asked for.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Of the table that it is in: empty, `mail.`, `subscriptions[].`, `secrets.*.`.
    pub(super) within: String,
    pub(super) key: Key,
    pub(super) kind: Kind,
    pub(super) written: Option<Written>,
}

impl Asked {
    /// `journal.age-max`.
    pub(super) fn path(&self) -> String {
        format!("{}{}", self.within, self.key.name)
    }

    /// What the environment calls it.
    pub(super) fn variable(&self) -> String {
        let of_path = || format!("NOTIFY_{}", self.path().to_uppercase().replace(['.', '-'], "_"));
        self.key.variable.map_or_else(of_path, str::to_owned)
    }
}

/// All keys that one kind of file may have, in the order in which they are asked for.
#[derive(Clone)]
pub(super) struct Inventory(pub(super) Vec<Asked>);

impl Inventory {
    /// Those of one table.
    pub(super) fn within<'i>(&'i self, within: &'i str) -> impl Iterator<Item = &'i Asked> {
        self.0.iter().filter(move |asked| asked.within == within)
    }

    pub(super) fn get(&self, path: &str) -> Option<&Asked> {
        self.0.iter().find(|asked| asked.path() == path)
    }

    /// Those that are one value each, wherever they stand.
    pub(super) fn values(&self) -> impl Iterator<Item = &Asked> {
        let either = self.0.iter().filter(|asked| asked.kind == Kind::TextOrTable);
        let either: BTreeSet<_> = either.map(|asked| format!("{}.", asked.path())).collect();
        self.0.iter().filter(move |asked| {
            asked.kind.is_value() && !asked.within.contains(['[', '*']) && !either.contains(&asked.within)
        })
    }
}
