//! A filter is the operator's condition on events, in CEL (<https://cel.dev>):
//! `data.total > 100 && data.country == "DE"`.
//!
//! It is checked and compiled when it is read, and then only asked. It sees the attributes by their
//! names in CloudEvents (`type`, `source`, `subject`, `id`, `time`), `extensions`, and `data`.
//! What an event lacks does not match. What the filter cannot look at is let through, because the host's
//! own bounds must lose no event.

mod check;
mod look;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cel::common::types::CelBool;
use cel::{ExecutionError, Value};

pub use crate::filter::look::Look;

/// An expression's text.
const TEXT_BYTES_MAX: usize = 2048;
/// Data that a filter is run on.
const DATA_BYTES_MAX: usize = 1 << 20;
/// What one evaluation may have to go through, see [`Growth`].
const WORK_BYTES_MAX: usize = 64 << 20;
/// The same, of what is kept: values take many times as much memory as their text.
const COPIED_BYTES_MAX: usize = 4 << 20;
/// An evaluation that takes longer is worth a word.
const SLOW: Duration = Duration::from_millis(20);

/// A condition on events.
#[derive(Clone)]
pub struct Filter {
    text: Arc<str>,
    expression: Arc<cel::IdedExpr>,
    growth: Growth,
    reads_data: bool,
    /// What was said of it already.
    said: Arc<[AtomicBool; 3]>,
}

/// What an expression can make of the bytes that it is given: so many times as much as the longest list has
/// entries, for each of `all`, `map` and the like within another, and as there are sums, for each that goes
/// through what another one made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Growth {
    /// `all`, `map` and the like within each other.
    nesting: u32,
    /// The same, within each other or one behind the other.
    stages: u32,
    /// Of numbers, or of texts and lists, which become longer.
    sums: usize,
    /// The longest list that it holds itself.
    longest: usize,
    /// It may put what is not of the list at hand into a list, once for each entry.
    copies: bool,
}

impl Growth {
    fn of(self, bytes: usize, longest: usize) -> usize {
        let entries = longest.max(self.longest).max(1).saturating_pow(self.nesting);
        let longer = (self.sums + 1).saturating_pow(self.stages + 1);
        bytes.saturating_mul(entries).saturating_mul(longer)
    }
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// Bytes from the beginning of the expression.
    pub at: usize,
    pub problem: String,
}

/// What an operator is warned of, once for each filter: what it says of one event it would say of thousands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matter {
    Unfit,
    NotAsked,
    Slow,
}

/// What a filter says of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    No,
    /// The event lacks what the filter asks for: no.
    Lacks(String),
    /// The expression does not fit the event's values: no, and the operator should know.
    Unfit(String),
    /// It could not be asked: yes, and the operator should know.
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
        // The parser, and the tree that it makes, take a stack of their own size, whoever calls.
        check::parse(text)
    }

    fn of(text: &str, expression: cel::IdedExpr, growth: Growth, reads_data: bool) -> Self {
        Self { text: text.into(), expression: Arc::new(expression), growth, reads_data, said: Arc::default() }
    }

    /// As the operator wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether this is the first time that it comes up.
    pub fn is_first(&self, matter: Matter) -> bool {
        !self.said[matter as usize].swap(true, Ordering::Relaxed)
    }

    /// Asks it. The time that it took, if that is worth a word.
    pub fn ask(&self, look: &Look<'_>) -> (Answer, Option<Duration>) {
        if let Err(problem) = self.can_read(look) {
            return (Answer::NotAsked(problem), None);
        }
        let begun = Instant::now();
        // The crate has panics for what its parser should never make; an event must not end the host.
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

/// An error may carry the values that it is about, whole.
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
