//! Turns a validation error into a sentence for the operator. Values are never repeated, because a value may be a
//! password that was put in the wrong place.

use event::suggest::nearest;
use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::Value;

use crate::settings::key_of;

/// Maximum characters of one message. A schema may list any number of alternatives.
const PROBLEM_CHARACTERS_MAX: usize = 500;

pub(super) struct SettingFault {
    /// JSON pointer of the setting.
    pub(super) pointer: String,
    pub(super) problem: String,
}

impl SettingFault {
    /// The key as the operator knows it: `config.recipients[0]`.
    pub(super) fn key(&self) -> String {
        key_of(&self.pointer)
    }
}

/// Describes a schema that is itself invalid.
pub(super) fn of_schema(error: &ValidationError<'_>) -> String {
    let place = match error.instance_path().as_str() {
        "" => "it".to_owned(),
        pointer => format!("its {pointer}"),
    };
    let problem: String = error.masked_with("it").to_string().chars().take(PROBLEM_CHARACTERS_MAX).collect();
    format!("{place}: {}", lower(&problem))
}

/// Describes an error. Most errors are one fault; each unknown key is a fault of its own.
pub(super) fn of(error: &ValidationError<'_>, schema: &Value) -> Vec<SettingFault> {
    let pointer = error.instance_path().as_str();
    let below = |name: &str| format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
    let one = |problem: String| vec![SettingFault { pointer: pointer.to_owned(), problem }];
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let known = properties_beside(error, schema);
            let fault = |name: &String| SettingFault { pointer: below(name), problem: unknown(name, &known) };
            unexpected.iter().map(fault).collect()
        }
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![SettingFault { pointer: below(name), problem: "it is missing".to_owned() }]
        }
        Kind::Type { kind } => one(format!("expected {}, got {}", kinds(kind), kind_of(error.instance()))),
        Kind::Enum { options } => {
            let options: Vec<_> = options.as_array().into_iter().flatten().map(Value::to_string).collect();
            one(format!("expected one of {}", options.join(", ")))
        }
        Kind::Constant { expected_value } => one(format!("expected {expected_value}")),
        Kind::Pattern { pattern } => one(format!("it does not match {pattern:?}")),
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            // "Matches none of the alternatives" says little. The first error of each alternative says more.
            let ways = context.iter().filter_map(|errors| of(errors.first()?, schema).into_iter().next());
            let ways: Vec<_> = ways.map(|fault| fault.problem).collect();
            let problem = format!("it fits none of the ways it may be: {}", ways.join("; or "));
            one(problem.chars().take(PROBLEM_CHARACTERS_MAX).collect())
        }
        _ => one(lower(&error.masked_with("it").to_string())),
    }
}

fn unknown(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("unknown key; did you mean {near:?}?"),
        None if known.is_empty() => "unknown key: the plugin has no such setting".to_owned(),
        None => format!("unknown key; expected one of {}", known.join(", ")),
    }
}

/// Returns the property names that the schema allows beside the unknown one.
fn properties_beside<'s>(error: &ValidationError<'_>, schema: &'s Value) -> Vec<&'s str> {
    let path = error.schema_path().as_str();
    let around = path.rsplit_once('/').map_or("", |(around, _)| around);
    let properties = schema.pointer(around).and_then(|around| around["properties"].as_object());
    properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str)).collect()
}

fn kinds(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(kind) => kind_name(kind.as_str()).to_owned(),
        TypeKind::Multiple(kinds) => kinds.iter().map(|kind| kind_name(kind.as_str())).collect::<Vec<_>>().join(" or "),
    }
}

/// Names a JSON Schema type in TOML's terms.
pub fn kind_name(kind: &str) -> &'static str {
    match kind {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        _ => "nothing",
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn lower(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}
