//! Bounds on a plugin's schema, so that neither compiling it nor validating settings with it takes long.
//!
//! References that each lead to two more let a few lines of JSON stand for any amount of work. So the size of a schema
//! is counted with its references written out, before it is compiled.

use std::collections::HashMap;

use serde_json::Value;

/// Maximum number of objects and lists in a schema, with its references written out.
const PARTS_MAX: u64 = 20_000;
/// Maximum number of regular expressions in a schema. Each of them is compiled.
const PATTERNS_MAX: usize = 64;
/// Maximum bytes of one regular expression. A short but expensive one is stopped by its compiled size.
const PATTERN_BYTES_MAX: usize = 1024;
/// Maximum nesting depth of a schema. The JSON parser's own bound is 128; each level costs the validator a call or two.
const DEPTH_MAX: usize = 64;
/// Keywords that are refused: they change what other references mean, or no settings need them.
const REFUSED: [&str; 5] = ["$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor"];

/// Checks the bounds. The error is a sentence fragment that says what is wrong.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    if !schema.is_object() {
        return Err("it is not a JSON object".to_owned());
    }
    let mut count = Count { root: schema, known: HashMap::new(), patterns: 0 };
    let parts = count.parts(schema, 0)?;
    if parts > PARTS_MAX {
        return Err(format!("with its references written out it has more than {PARTS_MAX} parts"));
    }
    Ok(())
}

/// Resolves a reference within the schema, such as `#` or `#/$defs/address`.
pub(super) fn follow<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    let pointer = reference.strip_prefix('#')?;
    // An escaped pointer is ambiguous: two parsers could read it differently.
    if pointer.contains('%') { None } else { root.pointer(pointer) }
}

struct Count<'s> {
    root: &'s Value,
    /// Size of each reference's target; `None` while it is being counted, which detects cycles.
    known: HashMap<&'s str, Option<u64>>,
    patterns: usize,
}

impl<'s> Count<'s> {
    fn parts(&mut self, at: &'s Value, depth: usize) -> Result<u64, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX} levels"));
        }
        let mut parts = 1_u64;
        match at {
            Value::Object(members) => {
                for (name, value) in members {
                    parts = parts.saturating_add(match (name.as_str(), value) {
                        ("$ref", Value::String(reference)) => self.reference(reference, depth)?,
                        ("$id", Value::String(_)) if depth > 0 => {
                            return Err("it has an $id within it, which changes what references mean".to_owned());
                        }
                        ("pattern", Value::String(pattern)) => self.pattern(pattern)?,
                        ("patternProperties", Value::Object(patterns)) => {
                            for pattern in patterns.keys() {
                                self.pattern(pattern)?;
                            }
                            self.parts(value, depth + 1)?
                        }
                        (name, Value::String(_) | Value::Bool(_)) if REFUSED.contains(&name) => {
                            return Err(format!("it uses {name}; this host knows $ref, with #/$defs/NAME"));
                        }
                        _ => self.parts(value, depth + 1)?,
                    });
                }
                if members.keys().any(|name| name.starts_with("unevaluated")) {
                    // `unevaluated…` makes the validator visit everything beside it a second time.
                    parts = parts.saturating_mul(2);
                }
            }
            Value::Array(entries) => {
                for entry in entries {
                    parts = parts.saturating_add(self.parts(entry, depth + 1)?);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        Ok(parts)
    }

    fn reference(&mut self, reference: &'s str, depth: usize) -> Result<u64, String> {
        match self.known.get(reference) {
            Some(Some(parts)) => return Ok(*parts),
            Some(None) => return Err(format!("{reference:?} leads back to itself")),
            None => {}
        }
        let target = follow(self.root, reference).ok_or_else(|| {
            format!("it refers to {reference:?}, and may refer to what is within it, as #/$defs/NAME")
        })?;
        self.known.insert(reference, None);
        let parts = self.parts(target, depth + 1)?;
        self.known.insert(reference, Some(parts));
        Ok(parts)
    }

    fn pattern(&mut self, pattern: &str) -> Result<u64, String> {
        self.patterns += 1;
        if pattern.len() > PATTERN_BYTES_MAX || self.patterns > PATTERNS_MAX {
            return Err(format!(
                "it may have {PATTERNS_MAX} regular expressions of up to {PATTERN_BYTES_MAX} bytes, and has more"
            ));
        }
        Ok(1)
    }
}
