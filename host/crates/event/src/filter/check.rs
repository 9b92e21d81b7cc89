//! Checks a filter expression when it is read: it must parse, use known names only, and be bounded.

use std::panic::catch_unwind;
use std::thread;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, SourceInfo, operators};

use crate::filter::look::{ENVIRONMENT, VARIABLES};
use crate::filter::{Filter, FilterError, Growth};
use crate::suggest::nearest;

/// Maximum depth of nested brackets and operators.
const DEPTH_MAX: usize = 48;
/// Maximum nesting of comprehensions: `all`, `exists`, `map` and `filter`.
const NESTING_MAX: u32 = 2;
/// Maximum number of comprehensions in one expression.
const COMPREHENSIONS_MAX: u32 = 8;
/// Stack size in bytes of the parsing thread. The parser takes about ten kilobytes per level, and a sum of a thousand
/// numbers is a tree of a thousand levels.
const STACK_BYTES: usize = 32 << 20;
/// Functions that may be called.
const FUNCTIONS: [&str; 19] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "bytes",
    "type",
    "dyn",
    "hasValue",
    "value",
    "or",
    "orValue",
    "of",
    "ofNonZeroValue",
    "none",
];
/// Macros. The parser expands them before the check sees a call.
const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];
/// Operators whose result is never a boolean.
const NOT_BOOLEAN: [&str; 6] = [
    operators::ADD,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
];

pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    let failed = |problem: &str| FilterError { at: 0, problem: format!("the CEL parser failed at it: {problem}") };
    let owned = text.to_owned();
    // The parser is large, generated code that gets operator input. A panic in it is a fault of the expression.
    let parse = move || catch_unwind(|| parse_here(&owned));
    let thread = thread::Builder::new().name("filter".to_owned()).stack_size(STACK_BYTES).spawn(parse);
    let parsed = thread.map_err(|error| failed(&error.to_string()))?.join();
    match parsed {
        Ok(Ok(filter)) => filter,
        Ok(Err(_)) | Err(_) => Err(failed("look for a slip in it")),
    }
}

fn parse_here(text: &str) -> Result<Filter, FilterError> {
    let parsed = ENVIRONMENT.parser().max_recursion_depth(48).parse_with_source_info(text);
    let (expression, source) = parsed.map_err(|errors| {
        // Report the first error; the others tend to follow from it.
        let error = errors.errors.first();
        let (line, column) = error.map_or((1, 1), |error| error.pos);
        let problem = error.map_or("it cannot be parsed", |error| error.msg.trim());
        FilterError { at: offset(text, line, column), problem: problem.replace('\n', " ") }
    })?;
    let mut check = Check {
        source: &source,
        names: Vec::new(),
        comprehensions: 0,
        growth: Growth::default(),
        gathers: false,
        looks_out: false,
        reads_data: false,
    };
    check.result(&expression)?;
    check.visit(&expression, 0, Level::default())?;
    let growth = Growth { copies: check.gathers && check.looks_out, ..check.growth };
    let reads_data = check.reads_data;
    Ok(Filter::of(text, expression, growth, reads_data))
}

/// Converts a line and column, both from 1, to a byte offset.
fn offset(text: &str, line: isize, column: isize) -> usize {
    let line = usize::try_from(line - 1).unwrap_or(0);
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(start..).unwrap_or_default();
    let column = usize::try_from(column - 1).unwrap_or(0);
    start + rest.char_indices().nth(column).map_or(rest.trim_end().len(), |(at, _)| at)
}

/// Position of an expression among comprehensions: how many surround it, and how many its result passes through.
#[derive(Clone, Copy, Default)]
struct Level {
    nesting: u32,
    stages: u32,
}

/// Whether an addition belongs to `map` or `filter`. They append to a list whose name begins with `@`, which no
/// expression can write.
fn is_gathering(first: Option<&IdedExpr>) -> bool {
    matches!(first.map(|first| &first.expr), Some(Expr::Ident(name)) if name.starts_with('@'))
}

struct Check<'a> {
    source: &'a SourceInfo,
    /// Names introduced by the surrounding macros.
    names: Vec<String>,
    comprehensions: u32,
    growth: Growth,
    /// The expression uses `map` or `filter`.
    gathers: bool,
    /// Within a macro, the expression uses a variable from outside it.
    looks_out: bool,
    reads_data: bool,
}

impl Check<'_> {
    fn fault<T>(&self, at: &IdedExpr, problem: String) -> Result<T, FilterError> {
        let at = self.source.offset_for(at.id).map_or(0, |(start, _)| usize::try_from(start).unwrap_or(0));
        // The parser counts in characters.
        let text = &self.source.source;
        let at = text.char_indices().nth(at).map_or(0, |(at, _)| at);
        Err(FilterError { at, problem })
    }

    /// Rejects expressions whose type is known not to be boolean.
    fn result(&self, expression: &IdedExpr) -> Result<(), FilterError> {
        use cel::common::ast::LiteralValue;
        let what = match &expression.expr {
            Expr::Literal(LiteralValue::Boolean(_)) => return Ok(()),
            Expr::Literal(_) => "a constant",
            Expr::List(_) => "a list",
            Expr::Map(_) => "a map",
            Expr::Call(call) if NOT_BOOLEAN.contains(&call.func_name.as_str()) => "a calculation",
            _ => return Ok(()),
        };
        self.fault(expression, format!("it is {what}, and a filter is true or false"))
    }

    fn visit(&mut self, at: &IdedExpr, depth: usize, level: Level) -> Result<(), FilterError> {
        if depth > DEPTH_MAX {
            return self.fault(at, format!("it is nested deeper than {DEPTH_MAX} levels; use brackets to balance it"));
        }
        let deeper = depth + 1;
        match &at.expr {
            Expr::Unspecified | Expr::Struct(_) => self.fault(at, "there are no structs here".to_owned()),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                self.looks_out |= level.nesting > 0 && VARIABLES.contains(&name.as_str());
                self.name(at, name)
            }
            Expr::Select(select) => self.visit(&select.operand, deeper, level),
            Expr::Call(call) => {
                self.function(at, &call.func_name)?;
                if call.func_name == operators::ADD {
                    if is_gathering(call.args.first()) {
                        self.gathers = true;
                    } else {
                        self.growth.sums += 1;
                    }
                }
                if let Some(target) = &call.target {
                    // In `optional.of(x)` the target is a namespace, not a variable.
                    if !matches!(&target.expr, Expr::Ident(name) if name == "optional") {
                        self.visit(target, deeper, level)?;
                    }
                }
                call.args.iter().try_for_each(|argument| self.visit(argument, deeper, level))
            }
            Expr::List(list) => {
                self.growth.longest = self.growth.longest.max(list.elements.len());
                list.elements.iter().try_for_each(|entry| self.visit(entry, deeper, level))
            }
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::StructField(field) => self.visit(&field.value, deeper, level),
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, deeper, level)?;
                    self.visit(&entry.value, deeper, level)
                }
            }),
            Expr::Comprehension(all) => {
                self.comprehensions += 1;
                let inside = Level { nesting: level.nesting + 1, stages: level.stages + 1 };
                self.growth.nesting = self.growth.nesting.max(inside.nesting);
                self.growth.stages = self.growth.stages.max(inside.stages);
                if inside.nesting > NESTING_MAX || self.comprehensions > COMPREHENSIONS_MAX {
                    let problem = format!(
                        "too many of {}: {NESTING_MAX} within each other, and {COMPREHENSIONS_MAX} in all",
                        MACROS[1..].join(", ")
                    );
                    return self.fault(at, problem);
                }
                // The range may be the result of another comprehension, and longer than its input.
                self.visit(&all.iter_range, deeper, Level { stages: inside.stages, ..level })?;
                self.visit(&all.accu_init, deeper, level)?;
                let known = self.names.len();
                self.names.extend([all.iter_var.clone(), all.accu_var.clone()]);
                self.names.extend(all.iter_var2.clone());
                self.visit(&all.loop_cond, deeper, inside)?;
                self.visit(&all.loop_step, deeper, inside)?;
                self.visit(&all.result, deeper, inside)?;
                self.names.truncate(known);
                Ok(())
            }
        }
    }

    fn name(&mut self, at: &IdedExpr, name: &str) -> Result<(), FilterError> {
        if self.names.iter().any(|known| known == name) {
            return Ok(());
        }
        if VARIABLES.contains(&name) {
            self.reads_data |= name == "data";
            return Ok(());
        }
        // Names of types, as in `type(data.total) == int`.
        if ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type"].contains(&name) {
            return Ok(());
        }
        let hint = nearest(name, VARIABLES).map_or_else(
            || format!("there are {}; a field of the event's data is data.{name}", VARIABLES.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        self.fault(at, format!("there is no {name:?}; {hint}"))
    }

    fn function(&self, at: &IdedExpr, name: &str) -> Result<(), FilterError> {
        let is_operator = name.starts_with(['_', '@', '!', '-']);
        if is_operator || FUNCTIONS.contains(&name) {
            return Ok(());
        }
        let all = [&FUNCTIONS[..12], &MACROS].concat();
        let hint = nearest(name, all.iter().copied())
            .map_or_else(|| format!("there are {}", all.join(", ")), |near| format!("did you mean {near}?"));
        self.fault(at, format!("there is no function {name:?}; {hint}"))
    }
}
