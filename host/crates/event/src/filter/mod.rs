//! A filter is the operator's condition on events, in CEL (<https://cel.dev>):
//! `data.total > 100 && data.country == "DE"`.
//!
//! It is checked and compiled once, when the settings are read. It sees the attributes by their CloudEvents names
//! (`type`, `source`, `subject`, `id`, `time`), `extensions`, and `data`.
//! An event that lacks a field does not match. An event that the filter cannot evaluate is let through, because the
//! host's own bounds must not lose an event.

mod check;
mod look;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cel::common::types::CelBool;
use cel::{ExecutionError, Value};

pub use crate::filter::look::Look;

/// Maximum bytes of an expression.
const TEXT_BYTES_MAX: usize = 2048;
/// Maximum bytes of data that a filter evaluates.
const DATA_BYTES_MAX: usize = 1 << 20;
/// Maximum estimated bytes that one evaluation processes, see [`Growth`].
const WORK_BYTES_MAX: usize = 64 << 20;
/// Maximum estimated bytes that one evaluation copies. Values take many times the memory of their text.
const COPIED_BYTES_MAX: usize = 4 << 20;
/// An evaluation that takes longer is reported.
const SLOW: Duration = Duration::from_millis(20);

/// A condition on events.
#[derive(Clone)]
pub struct Filter {
    text: Arc<str>,
    expression: Arc<cel::IdedExpr>,
    growth: Growth,
    reads_data: bool,
    /// Which warnings have been given, by [`Matter`].
    said: Arc<[AtomicBool; 3]>,
}

/// Bounds how much an expression can multiply its input. Each level of nested comprehensions multiplies it by the
/// length of the longest list. Each stage that processes another stage's result multiplies it by the number of sums
/// plus one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Growth {
    /// Depth of nested comprehensions (`all`, `map` and the like).
    nesting: u32,
    /// Number of comprehensions that data passes through, nested or chained.
    stages: u32,
    /// Number of additions: of numbers, or of strings and lists, which become longer.
    sums: usize,
    /// Length of the longest list in the expression itself.
    longest: usize,
    /// Whether it may copy a value from outside a list into a new list, once per entry.
    copies: bool,
}

impl Growth {
    fn of(self, bytes: usize, longest: usize) -> usize {
        let entries = longest.max(self.longest).max(1).saturating_pow(self.nesting);
        let longer = (self.sums + 1).saturating_pow(self.stages + 1);
        bytes.saturating_mul(entries).saturating_mul(longer)
    }
}

/// A fault in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// Byte offset in the expression.
    pub at: usize,
    pub problem: String,
}

/// Kinds of warnings to the operator. Each is given once per filter, because it would hold for thousands of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matter {
    Unfit,
    NotAsked,
    Slow,
}

/// A filter's verdict on an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    No,
    /// The event lacks a field that the filter uses: no match.
    Lacks(String),
    /// The expression does not fit the event's values: no match, and the operator is warned.
    Unfit(String),
    /// The filter could not be evaluated: a match, and the operator is warned.
    NotAsked(String),
}

impl Answer {
    pub fn matches(&self) -> bool {
        match self {
            Self::Yes | Self::NotAsked(_) => true,
            Self::No | Self::Lacks(_) | Self::Unfit(_) => false,
        }
    }
}

impl Filter {
    /// Compiles an expression.
    pub fn new(text: &str) -> Result<Self, FilterError> {
        let start = |problem: String| FilterError { at: 0, problem };
        if text.len() > TEXT_BYTES_MAX {
            return Err(start(format!("it has {} bytes, and may have {TEXT_BYTES_MAX}", text.len())));
        }
        // Parse on a thread with a stack of its own, whatever stack the caller has.
        check::parse(text)
    }

    fn of(text: &str, expression: cel::IdedExpr, growth: Growth, reads_data: bool) -> Self {
        Self { text: text.into(), expression: Arc::new(expression), growth, reads_data, said: Arc::default() }
    }

    /// Returns the expression as the operator wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether this warning comes up for the first time. Marks it as given.
    pub fn is_first(&self, matter: Matter) -> bool {
        !self.said[matter as usize].swap(true, Ordering::Relaxed)
    }

    /// Evaluates the filter. Also returns the time it took, if that was too long.
    pub fn ask(&self, look: &Look<'_>) -> (Answer, Option<Duration>) {
        if let Err(problem) = self.can_read(look) {
            return (Answer::NotAsked(problem), None);
        }
        let begun = Instant::now();
        // The CEL crate panics on trees that its parser should never produce. An event must not end the host.
        let result = catch_unwind(AssertUnwindSafe(|| self.evaluate(look)));
        let answer = result.unwrap_or_else(|_| Answer::NotAsked("the CEL interpreter failed at it".to_owned()));
        let took = begun.elapsed();
        (answer, (took > SLOW).then_some(took))
    }

    fn can_read(&self, look: &Look<'_>) -> Result<(), String> {
        let attributes = look.attribute_bytes();
        if !self.reads_data {
            return self.can_go_through(attributes, 0);
        }
        let bytes = look.data_bytes();
        if bytes > DATA_BYTES_MAX {
            return Err(format!("its data has {} KiB, and filters read {} KiB", bytes >> 10, DATA_BYTES_MAX >> 10));
        }
        self.can_go_through(attributes.max(bytes), look.data()?.longest)
    }

    fn can_go_through(&self, bytes: usize, longest: usize) -> Result<(), String> {
        let most = if self.growth.copies { COPIED_BYTES_MAX } else { WORK_BYTES_MAX };
        if self.growth.of(bytes, longest) > most {
            let longest = longest.max(self.growth.longest);
            return Err(format!("it would take too long: a list of {longest} entries in {} KiB", bytes >> 10));
        }
        Ok(())
    }

    fn evaluate(&self, look: &Look<'_>) -> Answer {
        let mut context = look::context();
        context.set_variable_resolver(look);
        let value = match Value::resolve_val(&self.expression, &context) {
            Ok(value) => value,
            Err(ExecutionError::NoSuchKey(key)) => return Answer::Lacks(format!("it has no {key:?}")),
            Err(ExecutionError::IndexOutOfBounds(index)) => {
                return Answer::Lacks(format!("it has no entry {}", shortened(&format!("{index:?}"))));
            }
            Err(error) => return Answer::Unfit(shortened(&error.to_string())),
        };
        match value.downcast_ref::<CelBool>() {
            Some(answer) if *answer.inner() => Answer::Yes,
            Some(_) => Answer::No,
            None => Answer::Unfit(format!("it is of type {}, and a filter is true or false", value.get_type().name())),
        }
    }
}

/// Shortens an error message, which may contain whole values.
fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Filter").field(&self.text).finish()
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Filter {}

#[cfg(test)]
mod tests;
