//! What a schema may be, so that neither compiling it nor checking settings by it takes long, whoever wrote it.
//!
//! A few lines of JSON can stand for any amount of work, by references that each lead to two more. So it is
//! counted what a schema comes to with its references written out, before it is compiled.

use std::collections::HashMap;

use serde_json::Value;

/// Nested objects and lists, references written out.
const PARTS_MAX: u64 = 20_000;
/// Regular expressions in it: each is compiled.
const PATTERNS_MAX: usize = 64;
/// In one of them; a short one can be as bad as it likes, and is stopped by its compiled size.
const PATTERN_BYTES_MAX: usize = 1024;
/// The JSON parser's own bound is 128; in a schema each level is a call or two of the validator's.
const DEPTH_MAX: usize = 64;
/// References that change what others mean, or that no settings need.
const REFUSED: [&str; 5] = ["$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor"];

/// The error is what is wrong, as a part of a sentence.
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

/// What a reference within the schema leads to: `#`, or `#/$defs/address`.
pub(super) fn follow<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    let pointer = reference.strip_prefix('#')?;
    // Escaped ones could be read in two ways.
    if pointer.contains('%') { None } else { root.pointer(pointer) }
}

struct Count<'s> {
    root: &'s Value,
    /// What references come to; `None` while it is counted.
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
                    // All that stands beside it is looked at again.
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
