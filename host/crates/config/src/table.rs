//! A table of a file. Its keys are asked for one by one, and every key that was not asked for is a fault.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use broker::BrokerUrl;
use event::suggest::nearest;
use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::document::Document;
use crate::faults::Faults;
use crate::key::{Key, KeyEntry, Kind, Privacy, Written, time};
use crate::values::{each, expected, one_line, parse_duration, parsed, text, with_texts};

/// State that all tables of one file share.
pub(super) struct Reading<'a> {
    /// `None` while exploring the keys: every table is then present and empty.
    pub(super) document: Option<&'a Document<'a>>,
    pub(super) asked: RefCell<Vec<KeyEntry>>,
}

/// A table that is read key by key.
pub(super) struct Table<'a> {
    /// Path of the table, with a dot at the end unless it is empty.
    path: String,
    /// The path in the inventory, with `*` for names that the file chooses.
    within: String,
    entries: Option<&'a DeTable<'a>>,
    /// Overrides from flags and variables.
    above: Option<&'a DeTable<'a>>,
    asked: Vec<&'static str>,
    reading: &'a Reading<'a>,
}

impl<'a> Table<'a> {
    pub(super) fn new(
        path: String,
        entries: Option<&'a DeTable<'a>>,
        above: Option<&'a DeTable<'a>>,
        reading: &'a Reading<'a>,
    ) -> Self {
        Self { within: path.clone(), path, entries, above, asked: Vec::new(), reading }
    }

    fn below(
        &self,
        name: &str,
        within: &str,
        entries: Option<&'a DeTable<'a>>,
        above: Option<&'a DeTable<'a>>,
    ) -> Self {
        let (path, within) = (format!("{}{name}.", self.path), format!("{}{within}.", self.within));
        Self { within, ..Self::new(path, entries, above, self.reading) }
    }

    fn is_explored(&self) -> bool {
        self.reading.document.is_none()
    }

    fn entry(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        let above = self.above.and_then(|above| above.get(key)).filter(|value| !value.get_ref().is_table());
        above.or_else(|| self.entries.and_then(|entries| entries.get(key)))
    }

    /// Returns the overrides for the table of this key.
    fn table_above(&self, key: &str) -> Option<&'a DeTable<'a>> {
        self.above.and_then(|above| above.get(key)).and_then(|value| value.get_ref().as_table())
    }

    fn value(&mut self, key: Key, kind: Kind) -> Option<&'a Spanned<DeValue<'a>>> {
        let value = self.entry(key.name);
        let written = value.filter(|_| kind.is_value()).map(|value| self.written(key, &kind, value));
        self.asked.push(key.name);
        self.reading.asked.borrow_mut().push(KeyEntry { within: self.within.clone(), key, kind, written });
        value
    }

    fn written(&self, key: Key, kind: &Kind, value: &Spanned<DeValue<'_>>) -> Written {
        let read = toml::Value::deserialize(toml::de::ValueDeserializer::from(value.clone()));
        let raw = read.as_ref().map(one_line).unwrap_or_default();
        let show = |text: &str| match (key.privacy, kind) {
            (Privacy::Open, Kind::Path | Kind::Paths) => {
                self.beside(value.span().start, PathBuf::from(text)).display().to_string()
            }
            (Privacy::Open, _) => text.to_owned(),
            (Privacy::Url, _) => text.parse::<BrokerUrl>().map_or("***".to_owned(), |url| url.to_string()),
            (Privacy::Whole, _) => "***".to_owned(),
        };
        let shown = read.map(|read| one_line(&with_texts(read, &show))).unwrap_or_default();
        Written { at: value.span(), shown, raw }
    }

    /// Resolves a path. A path in the file is relative to the file; a path in an override is relative to the current
    /// folder.
    fn beside(&self, at: usize, path: PathBuf) -> PathBuf {
        match self.reading.document {
            Some(document) if document.is_in_file(at) => document.file().parent().unwrap_or(Path::new("")).join(path),
            Some(_) | None => path,
        }
    }

    /// Whether the key is present, valid or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some() || self.table_above(key).is_some()
    }

    /// Reads the value through `read`, whose error says what was expected instead.
    fn get<T>(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
        kind: Kind,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let key = key.into();
        let value = self.value(key, kind)?;
        read(value.get_ref()).map_err(|problem| self.wrong(faults, key, value.span(), &problem)).ok()
    }

    fn wrong(&self, faults: &mut Faults<'_>, key: Key, at: Range<usize>, problem: &str) {
        let problem = format!("{}{}: {problem}", self.path, key.name);
        match key.privacy {
            Privacy::Open => faults.add(at, problem),
            Privacy::Url | Privacy::Whole => faults.add_private(at, problem),
        }
    }

    /// Reads a string that parses as `T`.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
    ) -> Option<T> {
        self.get(faults, key, Kind::Text, parsed)
    }

    /// Reads the path of a file or folder.
    pub(super) fn path(&mut self, faults: &mut Faults<'_>, key: impl Into<Key>) -> Option<PathBuf> {
        self.path_of(faults, key, |_| Ok(()))
    }

    /// Reads a path whose text must pass `check`.
    pub(super) fn path_of<T>(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<PathBuf> {
        let key = key.into();
        let path = self.get(faults, key, Kind::Path, |value| {
            let text = text(value)?;
            check(text).map(|_| PathBuf::from(text))
        })?;
        Some(self.beside(self.entry(key.name)?.span().start, path))
    }

    /// Reads a list of paths.
    pub(super) fn paths(&mut self, faults: &mut Faults<'_>, key: impl Into<Key>) -> Option<Vec<PathBuf>> {
        let key = key.into();
        let paths: Vec<PathBuf> = self.get(faults, key, Kind::Paths, |value| each(value, |text| Ok(text.into())))?;
        let at = self.entry(key.name)?.span().start;
        Some(paths.into_iter().map(|path| self.beside(at, path)).collect())
    }

    /// Reads an expression in a language of its own. The error of `parse` has the byte offset within the text.
    pub(super) fn expression<T>(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
        parse: impl FnOnce(&str) -> Result<T, (usize, String)>,
    ) -> Option<T> {
        let mut within = None;
        let value = self.get(faults, key, Kind::Text, |value| {
            let text = text(value)?;
            parse(text).map_err(|(at, problem)| {
                within = Some((text.to_owned(), at));
                problem
            })
        });
        if let Some((text, at)) = within {
            faults.within_last(&text, at);
        }
        value
    }

    /// Reads a string through `parse`.
    pub(super) fn text_of<T>(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.get(faults, key, Kind::Text, |value| parse(text(value)?))
    }

    /// Reads a list of strings that parse as `T`.
    pub(super) fn list<T: FromStr<Err: Display>>(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
    ) -> Option<Vec<T>> {
        self.list_of(faults, key, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// Reads a list of strings, each through `parse`.
    pub(super) fn list_of<T>(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.get(faults, key, Kind::Texts, |value| each(value, parse))
    }

    /// Reads one string or a list of them, and combines them with `together`.
    pub(super) fn one_or_more<T: FromStr<Err: Display>, R>(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
        together: impl FnOnce(Vec<T>) -> Result<R, String>,
    ) -> Option<R> {
        self.get(faults, key, Kind::TextOrTexts, |value| {
            let all = match value {
                DeValue::Array(array) => array.iter().map(|entry| parsed(entry.get_ref())).collect(),
                one => parsed(one).map(|one| vec![one]),
            };
            together(all?)
        })
    }

    /// Reads a boolean.
    pub(super) fn boolean(&mut self, faults: &mut Faults<'_>, key: impl Into<Key>) -> Option<bool> {
        self.get(faults, key, Kind::Boolean, |value| match value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(expected("true or false", other)),
        })
    }

    /// Reads a whole number within a range.
    pub(super) fn number(&mut self, faults: &mut Faults<'_>, key: impl Into<Key>, range: Range<u64>) -> Option<u64> {
        self.get(faults, key, Kind::Number(range.clone()), |value| {
            let DeValue::Integer(integer) = value else { return Err(expected("a whole number", value)) };
            let shown = integer.to_string();
            let number = shown.parse().ok().filter(|number| range.contains(number));
            number.ok_or_else(|| format!("expected {} to {}, got {shown}", range.start, range.end - 1))
        })
    }

    /// Reads a number from 0 to 1.
    pub(super) fn ratio(&mut self, faults: &mut Faults<'_>, key: impl Into<Key>) -> Option<f64> {
        self.get(faults, key, Kind::Ratio, |value| {
            let shown = match value {
                DeValue::Integer(integer) => integer.to_string(),
                DeValue::Float(float) => float.to_string(),
                other => return Err(expected("a number from 0 to 1", other)),
            };
            let number = shown.parse().ok().filter(|number| (0.0..=1.0).contains(number));
            number.ok_or_else(|| format!("expected a number from 0 to 1, got {shown}"))
        })
    }

    /// Reads a duration, written as a string with a unit.
    pub(super) fn duration(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
        range: Range<Duration>,
    ) -> Option<Duration> {
        self.get(faults, key, Kind::Duration(range.clone()), |value| {
            let shown = text(value)?;
            let duration = parse_duration(shown)?;
            if (range.start..=range.end).contains(&duration) {
                return Ok(duration);
            }
            Err(format!("expected {} to {}, got {shown}", time(range.start), time(range.end)))
        })
    }

    /// Reads a size in bytes, written as a string with a unit.
    pub(super) fn bytes(&mut self, faults: &mut Faults<'_>, key: impl Into<Key>, range: Range<usize>) -> Option<usize> {
        self.get(faults, key, Kind::Bytes(range.clone()), |value| {
            let shown = text(value)?;
            let size: bytesize::ByteSize =
                shown.parse().map_err(|_| format!("expected a size such as \"64 MiB\", got {shown:?}"))?;
            let bytes = usize::try_from(size.as_u64()).ok().filter(|bytes| range.contains(bytes));
            let show = |bytes: usize| bytesize::ByteSize(bytes as u64).display().iec();
            bytes.ok_or_else(|| format!("expected {} to {}, got {shown}", show(range.start), show(range.end - 1)))
        })
    }

    /// Reads a table within this one.
    pub(super) fn table(&mut self, faults: &mut Faults<'_>, key: impl Into<Key>) -> Option<Table<'a>> {
        let key = key.into();
        let value = self.value(key, Kind::Table);
        self.table_of(faults, key, value)
    }

    fn table_of(
        &self,
        faults: &mut Faults<'_>,
        key: Key,
        value: Option<&'a Spanned<DeValue<'a>>>,
    ) -> Option<Table<'a>> {
        let above = self.table_above(key.name);
        match value.map(|value| (value.get_ref(), value)) {
            Some((DeValue::Table(table), _)) => Some(self.below(key.name, key.name, Some(table), above)),
            Some((other, value)) => {
                self.wrong(faults, key, value.span(), &expected("a table", other));
                None
            }
            None => (self.is_explored() || above.is_some()).then(|| self.below(key.name, key.name, None, above)),
        }
    }

    /// Reads either a string through `parse`, or a table through `read`.
    pub(super) fn text_or_table<T>(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
        parse: impl FnOnce(&str) -> Result<T, String>,
        read: impl FnOnce(&mut Faults<'_>, Table<'a>) -> Option<T>,
    ) -> Option<T> {
        let key = key.into();
        let value = self.value(key, Kind::TextOrTable);
        match value {
            Some(value) if !value.get_ref().is_table() => {
                let parsed = text(value.get_ref()).and_then(parse);
                parsed.map_err(|problem| self.wrong(faults, key, value.span(), &problem)).ok()
            }
            value => self.table_of(faults, key, value).and_then(|table| read(faults, table)),
        }
    }

    /// Reads the tables below this key, whose names the file chooses. Returns each name, where it stands, and its
    /// table.
    pub(super) fn named_tables(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
    ) -> Vec<(String, Range<usize>, Table<'a>)> {
        let key = key.into();
        let value = self.value(key, Kind::NamedTables);
        let Some(table) = self.table_of(faults, key, value) else { return Vec::new() };
        let one = |name: &str, entries| table.below(name, "*", entries, None);
        if self.is_explored() {
            return vec![("name".to_owned(), 0..0, one("name", None))];
        }
        let mut tables = Vec::new();
        for (name, value) in table.entries.into_iter().flatten() {
            match value.get_ref() {
                DeValue::Table(entries) => {
                    let entries = one(name.get_ref(), Some(entries));
                    tables.push((name.get_ref().to_string(), name.span(), entries));
                }
                // Hide the value: it may be a secret in the wrong place.
                other => faults.add_private(
                    value.span(),
                    format!("{}{}: {}", table.path, name.get_ref(), expected("a table", other)),
                ),
            }
        }
        tables
    }

    /// Reports a removed key as a fault that says what to write instead. `instead` gets the strings of the old value.
    pub(super) fn refuse(
        &mut self,
        faults: &mut Faults<'_>,
        key: &'static str,
        instead: impl FnOnce(&[String]) -> String,
    ) {
        let Some(value) = self.entry(key) else { return };
        self.asked.push(key);
        let texts = match value.get_ref() {
            DeValue::Array(array) => {
                array.iter().filter_map(|entry| text(entry.get_ref()).ok().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        faults.add(value.span(), format!("{}{key}: {}", self.path, instead(&texts)));
    }

    /// Reads the tables of a `[[list]]`.
    pub(super) fn tables(&mut self, faults: &mut Faults<'_>, key: impl Into<Key>) -> Option<Vec<Table<'a>>> {
        let key = key.into();
        let value = self.value(key, Kind::Tables);
        let one = |entries| self.below(key.name, &format!("{}[]", key.name), entries, None);
        if self.is_explored() {
            return Some(vec![one(None)]);
        }
        let value = value?;
        let DeValue::Array(array) = value.get_ref() else {
            let problem = expected(&format!("[[{}{}]]", self.path, key.name), value.get_ref());
            self.wrong(faults, key, value.span(), &problem);
            return None;
        };
        let mut tables = Vec::new();
        for entry in array {
            match entry.get_ref() {
                DeValue::Table(table) => tables.push(one(Some(table))),
                other => self.wrong(faults, key, entry.span(), &expected("a table", other)),
            }
        }
        Some(tables)
    }

    /// Reads a table with arbitrary content as JSON.
    pub(super) fn json(
        &mut self,
        faults: &mut Faults<'_>,
        key: impl Into<Key>,
    ) -> Option<serde_json::Map<String, serde_json::Value>> {
        let key = key.into();
        let value = self.value(key, Kind::Anything)?;
        let json = serde_json::Value::deserialize(toml::de::ValueDeserializer::from(value.clone()));
        match json {
            Ok(serde_json::Value::Object(map)) => Some(map),
            Ok(_) => {
                self.wrong(faults, key, value.span(), &expected("a table", value.get_ref()));
                None
            }
            Err(error) => {
                self.wrong(faults, key, value.span(), error.message());
                None
            }
        }
    }

    /// Returns the line of each key and entry of such a table by JSON pointer; "" is the table itself.
    pub(super) fn lines(&self, faults: &Faults<'_>, key: &str) -> BTreeMap<String, usize> {
        let mut lines = BTreeMap::new();
        if let Some((name, value)) = self.entries.and_then(|entries| entries.get_key_value(key)) {
            // The span of a table is that of its heading or of its content, so use the key's.
            lines.insert(String::new(), faults.line_of(name.span().start));
            collect_lines(faults, "", value.get_ref(), &mut lines);
        }
        lines
    }

    /// Returns where this table's first key stands, for faults of the table as a whole.
    pub(super) fn span(&self) -> Range<usize> {
        let keys = [self.entries, self.above].into_iter().flatten().flat_map(DeTable::keys);
        keys.map(Spanned::span).min_by_key(|span| span.start).unwrap_or(0..0)
    }

    /// Reports a fault of one key's value.
    pub(super) fn fault_of(&self, faults: &mut Faults<'_>, key: &str, problem: &str) {
        let at = self.entry(key).map_or_else(|| self.span(), Spanned::span);
        faults.add(at, format!("{}{key}: {problem}", self.path));
    }

    /// Reports a fault of the table as a whole.
    pub(super) fn fault(&self, faults: &mut Faults<'_>, problem: &str) {
        faults.add(self.span(), format!("{}: {problem}", self.path.trim_end_matches('.')));
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self, faults: &mut Faults<'_>) {
        let keys = self.entries.into_iter().flat_map(DeTable::keys);
        for key in keys.filter(|key| !self.asked.contains(&&**key.get_ref())) {
            let name = key.get_ref();
            let hint = match nearest(name, self.asked.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("expected one of {}", self.asked.join(", ")),
            };
            faults.add_unknown(key.span(), format!("unknown key \"{}{name}\"", self.path), hint);
        }
    }
}

fn collect_lines(faults: &Faults<'_>, path: &str, value: &DeValue<'_>, lines: &mut BTreeMap<String, usize>) {
    match value {
        DeValue::Table(table) => {
            for (name, value) in table {
                let path = format!("{path}/{}", name.get_ref().replace('~', "~0").replace('/', "~1"));
                collect_lines(faults, &path, value.get_ref(), lines);
                lines.insert(path, faults.line_of(name.span().start));
            }
        }
        DeValue::Array(entries) => {
            for (number, value) in entries.iter().enumerate() {
                let path = format!("{path}/{number}");
                collect_lines(faults, &path, value.get_ref(), lines);
                lines.insert(path, faults.line_of(value.span().start));
            }
        }
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}
