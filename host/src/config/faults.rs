//! The faults of one file, each with its place, told all at once.

use std::ops::Range;
use std::path::Path;

/// What was found in a file so far.
pub(super) struct Faults<'a> {
    file: &'a Path,
    text: &'a str,
    found: Vec<Fault>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    at: usize,
    /// The line alone would not do.
    with_column: bool,
    problem: String,
}

impl<'a> Faults<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text, found: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn add(&mut self, at: Range<usize>, problem: String) {
        self.found.push(Fault { at: at.start, with_column: false, problem });
    }

    /// Makes the last one a fault at this byte of an expression that stands there.
    pub(super) fn within_last(&mut self, expression: &str, at: usize) {
        let Some(fault) = self.found.last_mut() else { return };
        // Where it stands in the file as it is, without escapes, the place in it is one in the file.
        if let Some(start) = self.text.get(fault.at..).and_then(|rest| rest.find(expression)) {
            fault.at += start + at;
            fault.with_column = true;
        }
    }

    pub(super) fn report(mut self) -> String {
        self.found.sort();
        let file = self.file.display();
        let faults = self.found.iter().map(|Fault { at, with_column, problem }| {
            let line = self.line_of(*at);
            if *with_column {
                let before = self.text.get(..*at).unwrap_or_default();
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                return format!("{file}:{line}:{column}: {problem}");
            }
            format!("{file}:{line}: {problem}")
        });
        faults.collect::<Vec<_>>().join("\n")
    }

    /// From 1.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }
}
