//! Reads a TOML file key by key. It collects each fault with its line, and each key that it was asked for: see
//! [`Inventory`].

use std::cell::RefCell;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use state::file::read_bounded;
use toml::de::DeTable;

use crate::document::{Document, Override};
pub(super) use crate::faults::Faults;
use crate::faults::Problems;
pub(super) use crate::key::{Inventory, Privacy, key};
use crate::table::Reading;
pub(super) use crate::table::Table;

/// Maximum bytes of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {error}", .file.display())]
pub struct Unreadable {
    file: PathBuf,
    pub error: Error,
}

/// Reads the file's text; `None` if there is no such file.
pub(super) fn read(file: &Path) -> Result<Option<String>, Unreadable> {
    let text = read_bounded(file, FILE_BYTES_MAX)
        .and_then(|content| String::from_utf8(content).map_err(|error| Error::new(ErrorKind::InvalidData, error)));
    match text {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Unreadable { file: file.to_owned(), error }),
    }
}

/// Parses the text. `parse` gets the file's top-level table.
pub(super) fn parse<T>(
    file: &Path,
    text: &str,
    parse: impl FnOnce(&mut Faults<'_>, Table<'_>) -> T,
) -> Result<T, Problems> {
    let read = read_under(&[], file, text, parse);
    if read.problems.0.is_empty() { Ok(read.value) } else { Err(read.problems) }
}

/// The result of a reading.
pub(super) struct Read<T> {
    /// The value; where there are problems, the defaults.
    pub(super) value: T,
    /// Every key that was asked for.
    pub(super) asked: Inventory,
    pub(super) problems: Problems,
}

/// Like [`parse`], with overrides, and returns the value even if there are problems.
pub(super) fn read_under<T>(
    overrides: &[Override],
    file: &Path,
    text: &str,
    parse: impl FnOnce(&mut Faults<'_>, Table<'_>) -> T,
) -> Read<T> {
    let document = Document::new(file, text, overrides);
    let mut faults = Faults::new(&document);
    let above = document.text_above();
    let (own, errors) = DeTable::parse_recoverable(document.file_text());
    // The overrides were written by us and always parse.
    let (above, more) = DeTable::parse_recoverable(&above);
    for error in errors.into_iter().chain(more) {
        let at = error.span().unwrap_or(0..0);
        // One mistake causes many syntax errors; only the first on a line means something.
        if !faults.has_on_line_of(at.start) {
            faults.add(at, error.message().replace('\n', ", "));
        }
    }
    let reading = Reading { document: Some(&document), asked: RefCell::default() };
    // After a syntax error the rest of the text may mean something else, so its faults are ignored.
    let mut ignored = Faults::new(&document);
    let told = if faults.is_empty() { &mut faults } else { &mut ignored };
    let value = parse(told, Table::new(String::new(), Some(own.get_ref()), Some(above.get_ref()), &reading));
    Read { value, asked: Inventory(reading.asked.into_inner()), problems: faults.report() }
}

/// Returns every key that `parse` can ask for.
pub(super) fn explore<T>(parse: impl FnOnce(&mut Faults<'_>, Table<'_>) -> T) -> Inventory {
    let document = Document::new(Path::new(""), "", &[]);
    let reading = Reading { document: None, asked: RefCell::default() };
    // An empty document produces many faults; ignore them.
    drop(parse(&mut Faults::new(&document), Table::new(String::new(), None, None, &reading)));
    Inventory(reading.asked.into_inner())
}
