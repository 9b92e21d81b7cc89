//! The faults of one file and its overrides. All are reported at once, each with its place.

use std::fmt::{self, Display};
use std::ops::Range;
use std::path::PathBuf;

use crate::document::Document;
use crate::source_location::SourceLocation;

/// Shown in place of a hidden value.
const HIDDEN: &str = "***";
/// On a line whose key contains one of these, the value may be a secret in the wrong place.
const SECRET_WORDS: [&str; 5] = ["password", "secret", "token", "credential", "key"];

/// Collects faults while a file is read.
pub(super) struct Faults<'a> {
    document: &'a Document<'a>,
    found: Vec<RecordedFault>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct RecordedFault {
    start: usize,
    end: usize,
    /// The line alone would not identify the fault.
    with_column: bool,
    problem: String,
    suggestion: Option<String>,
    /// The text at this place must not be shown.
    is_private: bool,
}

/// One fault, ready to be reported. Its text is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    pub place: SourceLocation,
    with_column: bool,
    pub problem: String,
    /// A guess at what was meant.
    pub suggestion: Option<String>,
    pub excerpt: Option<Excerpt>,
}

/// The line with the fault, without anything that must be hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    pub line: String,
    /// Byte range within `line` that is wrong.
    pub at: Range<usize>,
}

/// All faults; as text, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<ConfigFault>);

impl<'a> Faults<'a> {
    pub(super) fn new(document: &'a Document<'a>) -> Self {
        Self { document, found: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn has_on_line_of(&self, at: usize) -> bool {
        self.found.iter().any(|found| self.line_of(found.start) == self.line_of(at))
    }

    pub(super) fn add(&mut self, at: Range<usize>, problem: String) {
        self.put(at, problem, None, false);
    }

    /// Adds a fault at a place whose text must not be shown.
    pub(super) fn add_private(&mut self, at: Range<usize>, problem: String) {
        self.put(at, problem, None, true);
    }

    /// Adds a fault for an unknown key. Its value is hidden, because it was not meant for this file.
    pub(super) fn add_unknown(&mut self, at: Range<usize>, problem: String, suggestion: String) {
        self.put(at, problem, Some(suggestion), true);
    }

    fn put(&mut self, at: Range<usize>, problem: String, suggestion: Option<String>, is_private: bool) {
        self.found.push(RecordedFault {
            start: at.start,
            end: at.end,
            with_column: false,
            problem,
            suggestion,
            is_private,
        });
    }

    /// Narrows the last fault down to a byte offset within an expression that stands there.
    pub(super) fn within_last(&mut self, expression: &str, at: usize) {
        let Some(fault) = self.found.last_mut() else { return };
        // Without escapes the expression stands in the file verbatim, so an offset in it is an offset in the file.
        if let Some(start) = self.document.text.get(fault.start..).and_then(|rest| rest.find(expression)) {
            let word = expression.get(at..).unwrap_or_default();
            let length = word.find(|character: char| !character.is_alphanumeric() && character != '_');
            fault.start += start + at;
            fault.end = fault.start + length.unwrap_or(word.len()).max(1);
            fault.with_column = true;
        }
    }

    pub(super) fn report(mut self) -> Problems {
        self.found.sort();
        self.found.dedup();
        Problems(self.found.iter().map(|found| self.fault(found)).collect())
    }

    fn fault(&self, found: &RecordedFault) -> ConfigFault {
        let excerpt = self.document.is_in_file(found.start).then(|| self.excerpt(found));
        ConfigFault {
            place: self.document.place(found.start),
            with_column: found.with_column,
            problem: found.problem.clone(),
            suggestion: found.suggestion.clone(),
            excerpt,
        }
    }

    fn excerpt(&self, found: &RecordedFault) -> Excerpt {
        let text = self.document.file_text();
        let start = text.get(..found.start).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
        let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let within = |at: usize| at.clamp(start, start + line.len()) - start;
        excerpt(line, within(found.start)..within(found.end.max(found.start + 1)), found.is_private)
    }

    /// Formats the place of an offset: `plugins/slack.toml:7`.
    pub(super) fn place_of(&self, at: usize) -> String {
        self.document.place(at).to_string()
    }

    /// Returns the line number of an offset, from 1.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.document.line_of(at)
    }
}

/// Prepares a line for display: hides secrets and replaces control characters.
fn excerpt(line: &str, at: Range<usize>, is_private: bool) -> Excerpt {
    let mut hidden = line.len()..line.len();
    if let Some((name, value)) = line.split_once('=') {
        let name = name.to_lowercase();
        if is_private || SECRET_WORDS.iter().any(|word| name.contains(word)) {
            hidden = line.len() - value.trim_start().len()..line.len();
        } else if let Some(login) = login(line) {
            hidden = login;
        }
    } else if is_private && !is_heading(line) {
        hidden = 0..line.len();
    }
    let mut shown = String::new();
    // Map the byte range of the line to the shown text.
    let (mut start, mut end) = (None, None);
    for (place, character) in line.char_indices() {
        if place >= at.start {
            start.get_or_insert(shown.len());
        }
        if place >= at.end {
            end.get_or_insert(shown.len());
        }
        if hidden.contains(&place) {
            if place == hidden.start {
                shown.push_str(HIDDEN);
            }
        } else {
            // A tab becomes one space, so that the caret stands below what it marks.
            shown.push(if character.is_control() { ' ' } else { character });
        }
    }
    let start = start.unwrap_or(shown.len());
    let end = end.unwrap_or(shown.len()).max(start);
    // A range within the hidden part marks all of it.
    let start =
        if hidden.contains(&at.start) && at.start > hidden.start { start.saturating_sub(HIDDEN.len()) } else { start };
    Excerpt { line: shown, at: start..end.max(start) }
}

/// Whether the line is a heading such as `[secrets.token]`, with nothing in quotes.
fn is_heading(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('[') && line.ends_with(']') && !line.contains(['"', '\''])
}

/// Finds user and password of the URLs on a line, from the first to the last.
fn login(line: &str) -> Option<Range<usize>> {
    let from = line.find("://")? + 3;
    let to = line.rfind('@')?;
    line.get(from..to)?.contains(':').then_some(from..to)
}

impl ConfigFault {
    /// Makes a fault that concerns a whole file, such as a missing one.
    pub fn of_file(file: PathBuf, problem: String) -> Self {
        Self { place: SourceLocation::Whole(file), with_column: false, problem, suggestion: None, excerpt: None }
    }

    /// Makes a fault of a flag or a variable.
    pub(super) fn of_override(name: String, problem: String) -> Self {
        Self { place: SourceLocation::Override(name), with_column: false, problem, suggestion: None, excerpt: None }
    }

    /// Returns the problem and the suggestion in one sentence.
    pub fn sentence(&self) -> String {
        match &self.suggestion {
            Some(suggestion) => format!("{}; {suggestion}", self.problem),
            None => self.problem.clone(),
        }
    }
}

impl Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            // The problem names the file itself.
            SourceLocation::Whole(_) => {}
            SourceLocation::File { column, .. } if self.with_column => write!(f, "{}:{column}: ", self.place)?,
            place => write!(f, "{place}: ")?,
        }
        f.write_str(&self.sentence())
    }
}

impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.0.iter().enumerate() {
            let newline = if number > 0 { "\n" } else { "" };
            write!(f, "{newline}{fault}")?;
        }
        Ok(())
    }
}

impl From<Problems> for String {
    fn from(problems: Problems) -> Self {
        problems.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, at: &str, is_private: bool, expected: &str, expected_at: &str) {
        let start = line.find(at).unwrap();
        let excerpt = excerpt(line, start..start + at.len(), is_private);
        assert_eq!((&*excerpt.line, &excerpt.line[excerpt.at.clone()]), (expected, expected_at), "{line}");
    }

    #[test]
    fn an_excerpt_shows_no_secret() {
        check("prefetch = 0", "0", false, "prefetch = 0", "0");
        check("\tprefetch =\t0 # ß", "0", false, " prefetch = 0 # ß", "0");
        check("broker = \"amqp://u:pw@x\"", "\"amqp://u:pw@x\"", true, "broker = ***", "***");
        check("url = \"amqp://u:p@w@x\", 5", "5", false, "url = \"amqp://***@x\", 5", "5");
        check("pasword = \"pw\"", "pasword", true, "pasword = ***", "pasword");
        check("Password = hunter2", "unter", false, "Password = ***", "***");
        check("a = { b = 5, tokn = \"x\" }", "tokn", true, "a = ***", "***");
        check("\"hunter2\"", "\"hunter2\"", true, "***", "***");
        check("[sources]", "sources", true, "[sources]", "sources");
        check("\u{1b}[2J = 1", "1", false, " [2J = 1", "1");
    }
}
