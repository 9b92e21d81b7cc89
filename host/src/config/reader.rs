//! Reads a TOML file key by key, and remembers each fault with its line.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{Error, ErrorKind};
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) use crate::config::faults::Faults;
use crate::file::read_bounded;
use crate::likeness::nearest;

/// A file is refused beyond this.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the file's text; `None` if there is no such file.
pub(super) fn read(file: &Path) -> Result<Option<String>, String> {
    let text = read_bounded(file, FILE_BYTES_MAX)
        .and_then(|content| String::from_utf8(content).map_err(|error| Error::new(ErrorKind::InvalidData, error)));
    match text {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", file.display())),
    }
}

/// Takes the text apart with `parse`, which gets the file's top level. All faults in one text.
pub(super) fn parse<T>(
    file: &Path,
    text: &str,
    parse: impl FnOnce(&mut Faults<'_>, Table<'_>) -> T,
) -> Result<T, String> {
    let mut faults = Faults::new(file, text);
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            faults.add(error.span().unwrap_or(0..0), error.message().replace('\n', ", "));
            return Err(faults.report());
        }
    };
    let value = parse(&mut faults, Table::new(String::new(), document.get_ref()));
    if faults.is_empty() { Ok(value) } else { Err(faults.report()) }
}

/// A table, whose keys are asked for one by one.
pub(super) struct Table<'a> {
    /// With a dot at its end, unless it is empty.
    path: String,
    entries: &'a DeTable<'a>,
    asked: Vec<&'static str>,
}

impl<'a> Table<'a> {
    fn new(path: String, entries: &'a DeTable<'a>) -> Self {
        Self { path, entries, asked: Vec::new() }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push(key);
        self.entries.get(key)
    }

    /// Whether the key is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether a table stands there.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| matches!(value.get_ref(), DeValue::Table(_)))
    }

    /// What `read` makes of the value; its error says what was expected instead.
    fn get<T>(
        &mut self,
        faults: &mut Faults<'_>,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        read(value.get_ref()).map_err(|problem| faults.add(value.span(), format!("{}{key}: {problem}", self.path))).ok()
    }

    /// A text that parses.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, faults: &mut Faults<'_>, key: &'static str) -> Option<T> {
        self.get(faults, key, parsed)
    }

    /// A text in a language of its own; its error says at which byte of the text.
    pub(super) fn expression<T>(
        &mut self,
        faults: &mut Faults<'_>,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, (usize, String)>,
    ) -> Option<T> {
        let mut within = None;
        let value = self.get(faults, key, |value| {
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

    /// A text, and what `parse` makes of it.
    pub(super) fn text_of<T>(
        &mut self,
        faults: &mut Faults<'_>,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.get(faults, key, |value| parse(text(value)?))
    }

    /// A list of texts that parse.
    pub(super) fn list<T: FromStr<Err: Display>>(
        &mut self,
        faults: &mut Faults<'_>,
        key: &'static str,
    ) -> Option<Vec<T>> {
        self.list_of(faults, key, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// A list of texts, and what `parse` makes of each.
    pub(super) fn list_of<T>(
        &mut self,
        faults: &mut Faults<'_>,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.get(faults, key, |value| {
            let DeValue::Array(array) = value else { return Err(expected("a list of texts", value)) };
            array.iter().map(|entry| parse(text(entry.get_ref())?)).collect()
        })
    }

    /// What `together` makes of one text or a list of them.
    pub(super) fn one_or_more<T: FromStr<Err: Display>, R>(
        &mut self,
        faults: &mut Faults<'_>,
        key: &'static str,
        together: impl FnOnce(Vec<T>) -> Result<R, String>,
    ) -> Option<R> {
        self.get(faults, key, |value| {
            let all = match value {
                DeValue::Array(array) => array.iter().map(|entry| parsed(entry.get_ref())).collect(),
                one => parsed(one).map(|one| vec![one]),
            };
            together(all?)
        })
    }

    /// True or false.
    pub(super) fn boolean(&mut self, faults: &mut Faults<'_>, key: &'static str) -> Option<bool> {
        self.get(faults, key, |value| match value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(expected("true or false", other)),
        })
    }

    /// A whole number in a range.
    pub(super) fn number(&mut self, faults: &mut Faults<'_>, key: &'static str, range: Range<u64>) -> Option<u64> {
        self.get(faults, key, |value| {
            let DeValue::Integer(integer) = value else { return Err(expected("a whole number", value)) };
            let shown = integer.to_string();
            let number = shown.parse().ok().filter(|number| range.contains(number));
            number.ok_or_else(|| format!("expected {} to {}, got {shown}", range.start, range.end - 1))
        })
    }

    /// A number from 0 to 1.
    pub(super) fn ratio(&mut self, faults: &mut Faults<'_>, key: &'static str) -> Option<f64> {
        self.get(faults, key, |value| {
            let shown = match value {
                DeValue::Integer(integer) => integer.to_string(),
                DeValue::Float(float) => float.to_string(),
                other => return Err(expected("a number from 0 to 1", other)),
            };
            let number = shown.parse().ok().filter(|number| (0.0..=1.0).contains(number));
            number.ok_or_else(|| format!("expected a number from 0 to 1, got {shown}"))
        })
    }

    /// A length of time, as text with a unit.
    pub(super) fn duration(
        &mut self,
        faults: &mut Faults<'_>,
        key: &'static str,
        range: Range<Duration>,
    ) -> Option<Duration> {
        self.get(faults, key, |value| {
            let shown = text(value)?;
            let duration = parse_duration(shown)?;
            if (range.start..=range.end).contains(&duration) {
                return Ok(duration);
            }
            Err(format!("expected {:?} to {:?}, got {shown}", range.start, range.end))
        })
    }

    /// A number of bytes, as text with a unit.
    pub(super) fn bytes(&mut self, faults: &mut Faults<'_>, key: &'static str, range: Range<usize>) -> Option<usize> {
        self.get(faults, key, |value| {
            let shown = text(value)?;
            let size: bytesize::ByteSize =
                shown.parse().map_err(|_| format!("expected a size such as \"64 MiB\", got {shown:?}"))?;
            let bytes = usize::try_from(size.as_u64()).ok().filter(|bytes| range.contains(bytes));
            let show = |bytes: usize| bytesize::ByteSize(bytes as u64).display().iec();
            bytes.ok_or_else(|| format!("expected {} to {}, got {shown}", show(range.start), show(range.end - 1)))
        })
    }

    /// A table within this one.
    pub(super) fn table(&mut self, faults: &mut Faults<'_>, key: &'static str) -> Option<Table<'a>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Table::new(format!("{}{key}.", self.path), table)),
            other => {
                faults.add(value.span(), format!("{}{key}: {}", self.path, expected("a table", other)));
                None
            }
        }
    }

    /// The tables within the table of this key, by their names, which the file chooses; and where each name stands.
    pub(super) fn named_tables(
        &mut self,
        faults: &mut Faults<'_>,
        key: &'static str,
    ) -> Vec<(String, Range<usize>, Table<'a>)> {
        let Some(table) = self.table(faults, key) else { return Vec::new() };
        let mut tables = Vec::new();
        for (name, value) in table.entries {
            let path = format!("{}{}", table.path, name.get_ref());
            match value.get_ref() {
                DeValue::Table(entries) => {
                    let entries = Table::new(format!("{path}."), entries);
                    tables.push((name.get_ref().to_string(), name.span(), entries));
                }
                other => faults.add(value.span(), format!("{path}: {}", expected("a table", other))),
            }
        }
        tables
    }

    /// A key that is no longer there is a fault, which says what to write instead; it may need the texts there.
    pub(super) fn refuse(
        &mut self,
        faults: &mut Faults<'_>,
        key: &'static str,
        instead: impl FnOnce(&[String]) -> String,
    ) {
        let Some(value) = self.entries.get(key) else { return };
        self.asked.push(key);
        let texts = match value.get_ref() {
            DeValue::Array(array) => {
                array.iter().filter_map(|entry| text(entry.get_ref()).ok().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        faults.add(value.span(), format!("{}{key}: {}", self.path, instead(&texts)));
    }

    /// The tables of a `[[list]]`.
    pub(super) fn tables(&mut self, faults: &mut Faults<'_>, key: &'static str) -> Option<Vec<Table<'a>>> {
        let value = self.value(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            let problem = expected(&format!("[[{}{key}]]", self.path), value.get_ref());
            faults.add(value.span(), format!("{}{key}: {problem}", self.path));
            return None;
        };
        let mut tables = Vec::new();
        for entry in array {
            match entry.get_ref() {
                DeValue::Table(table) => tables.push(Table::new(format!("{}{key}.", self.path), table)),
                other => faults.add(entry.span(), format!("{}{key}: {}", self.path, expected("a table", other))),
            }
        }
        Some(tables)
    }

    /// A table of anything, as JSON.
    pub(super) fn json(
        &mut self,
        faults: &mut Faults<'_>,
        key: &'static str,
    ) -> Option<serde_json::Map<String, serde_json::Value>> {
        let value = self.value(key)?;
        let json = serde_json::Value::deserialize(toml::de::ValueDeserializer::from(value.clone()));
        match json {
            Ok(serde_json::Value::Object(map)) => Some(map),
            Ok(_) => {
                let problem = expected("a table", value.get_ref());
                faults.add(value.span(), format!("{}{key}: {problem}", self.path));
                None
            }
            Err(error) => {
                faults.add(value.span(), format!("{}{key}: {}", self.path, error.message()));
                None
            }
        }
    }

    /// The line of each key and entry in a table of anything, by its JSON pointer; that of the table itself by "".
    pub(super) fn lines(&self, faults: &Faults<'_>, key: &str) -> BTreeMap<String, usize> {
        let mut lines = BTreeMap::new();
        if let Some((name, value)) = self.entries.get_key_value(key) {
            // A table's own span is that of its heading, or of what is in it.
            lines.insert(String::new(), faults.line_of(name.span().start));
            collect_lines(faults, "", value.get_ref(), &mut lines);
        }
        lines
    }

    /// Where this table's first key stands, for a fault of the table as a whole.
    pub(super) fn span(&self) -> Range<usize> {
        self.entries.keys().map(Spanned::span).min_by_key(|span| span.start).unwrap_or(0..0)
    }

    /// Reports a fault of the table as a whole.
    pub(super) fn fault(&self, faults: &mut Faults<'_>, problem: &str) {
        faults.add(self.span(), format!("{}: {problem}", self.path.trim_end_matches('.')));
    }

    /// Every key that nobody asked for is a fault.
    pub(super) fn finish(self, faults: &mut Faults<'_>) {
        for key in self.entries.keys().filter(|key| !self.asked.contains(&&**key.get_ref())) {
            let name = key.get_ref();
            let hint = match nearest(name, self.asked.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("expected one of {}", self.asked.join(", ")),
            };
            faults.add(key.span(), format!("unknown key \"{}{name}\"; {hint}", self.path));
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

/// `10s`, `1m 30s`, `500ms`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a length of time such as \"10s\" or \"1m 30s\", got {text:?}");
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(duration).map_err(|_| wrong())
}

fn parsed<T: FromStr<Err: Display>>(value: &DeValue<'_>) -> Result<T, String> {
    text(value)?.parse().map_err(|error: T::Err| error.to_string())
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err(expected("a text in quotes", other)),
    }
}

fn expected(what: &str, got: &DeValue<'_>) -> String {
    let got = match got {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("expected {what}, got {got}")
}
