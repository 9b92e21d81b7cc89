//! The faults of one file, and of what stands above it, each with its place, told all at once.

use std::fmt::{self, Display};
use std::ops::Range;
use std::path::PathBuf;

use crate::document::Document;

/// In the place of what nobody gets to see.
const HIDDEN: &str = "***";
/// What is right of such names on a line may be a secret that was put in the wrong place.
const SECRET_WORDS: [&str; 5] = ["password", "secret", "token", "credential", "key"];

/// What was found so far.
pub(super) struct Faults<'a> {
    document: &'a Document<'a>,
    found: Vec<Found>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    start: usize,
    end: usize,
    /// The line alone would not do.
    with_column: bool,
    problem: String,
    suggestion: Option<String>,
    /// What stands there is not to be shown.
    is_private: bool,
}

/// One of them, for whoever tells it. As a text it is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    with_column: bool,
    pub problem: String,
    /// What may have been meant.
    pub suggestion: Option<String>,
    pub excerpt: Option<Excerpt>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Both from 1; a column is a character.
    File { file: PathBuf, line: usize, column: usize },
    /// A flag, or a variable of the environment.
    Override(String),
    /// The file as a whole.
    Whole(PathBuf),
}

/// The line with the fault, without what nobody gets to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    pub line: String,
    /// Of its bytes, those that are wrong.
    pub at: Range<usize>,
}

/// All that is wrong: a line for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Fault>);

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

    /// What stands there is not to be shown.
    pub(super) fn add_private(&mut self, at: Range<usize>, problem: String) {
        self.put(at, problem, None, true);
    }

    /// A key that is not known. Whatever its value is was not meant to be read here.
    pub(super) fn add_unknown(&mut self, at: Range<usize>, problem: String, suggestion: String) {
        self.put(at, problem, Some(suggestion), true);
    }

    fn put(&mut self, at: Range<usize>, problem: String, suggestion: Option<String>, is_private: bool) {
        self.found.push(Found { start: at.start, end: at.end, with_column: false, problem, suggestion, is_private });
    }

    /// Makes the last one a fault at this byte of an expression that stands there.
    pub(super) fn within_last(&mut self, expression: &str, at: usize) {
        let Some(fault) = self.found.last_mut() else { return };
        // Where it stands in the file as it is, without escapes, the place in it is one in the file.
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

    fn fault(&self, found: &Found) -> Fault {
        let excerpt = self.document.is_in_file(found.start).then(|| self.excerpt(found));
        Fault {
            place: self.document.place(found.start),
            with_column: found.with_column,
            problem: found.problem.clone(),
            suggestion: found.suggestion.clone(),
            excerpt,
        }
    }

    fn excerpt(&self, found: &Found) -> Excerpt {
        let text = self.document.file_text();
        let start = text.get(..found.start).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
        let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let within = |at: usize| at.clamp(start, start + line.len()) - start;
        excerpt(line, within(found.start)..within(found.end.max(found.start + 1)), found.is_private)
    }

    /// `plugins/slack.toml:7`.
    pub(super) fn place_of(&self, at: usize) -> String {
        self.document.place(at).to_string()
    }

    /// From 1.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.document.line_of(at)
    }
}

/// The line, fit to be shown.
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
    // Where each byte of the line is in what is shown.
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
            // A tab is one blank, so that the caret is below what it means.
            shown.push(if character.is_control() { ' ' } else { character });
        }
    }
    let start = start.unwrap_or(shown.len());
    let end = end.unwrap_or(shown.len()).max(start);
    // Within what is hidden, all of it is meant.
    let start =
        if hidden.contains(&at.start) && at.start > hidden.start { start.saturating_sub(HIDDEN.len()) } else { start };
    Excerpt { line: shown, at: start..end.max(start) }
}

/// `[secrets.token]`, with nothing in quotes.
fn is_heading(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('[') && line.ends_with(']') && !line.contains(['"', '\''])
}

/// User and password of the URLs on a line, from the first to the last.
fn login(line: &str) -> Option<Range<usize>> {
    let from = line.find("://")? + 3;
    let to = line.rfind('@')?;
    line.get(from..to)?.contains(':').then_some(from..to)
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, .. } => write!(f, "{}:{line}", file.display()),
            Self::Override(name) => f.write_str(name),
            Self::Whole(file) => write!(f, "{}", file.display()),
        }
    }
}

impl Fault {
    /// One that concerns a file as a whole, such as that there is none.
    pub fn of_file(file: PathBuf, problem: String) -> Self {
        Self { place: Place::Whole(file), with_column: false, problem, suggestion: None, excerpt: None }
    }

    /// One of a flag or a variable.
    pub(super) fn of_override(name: String, problem: String) -> Self {
        Self { place: Place::Override(name), with_column: false, problem, suggestion: None, excerpt: None }
    }

    /// What is wrong, with what may have been meant.
    pub fn sentence(&self) -> String {
        match &self.suggestion {
            Some(suggestion) => format!("{}; {suggestion}", self.problem),
            None => self.problem.clone(),
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            // It says itself which file.
            Place::Whole(_) => {}
            Place::File { column, .. } if self.with_column => write!(f, "{}:{column}: ", self.place)?,
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
