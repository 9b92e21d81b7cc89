//! Reads values of a TOML file, and formats them.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use crate::key::quoted;

/// Parses a duration such as `10s`, `1m 30s`, `500ms` or `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a length of time such as \"10s\" or \"1m 30s\", got {text:?}");
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(duration).map_err(|_| wrong())
}

/// Reads a list of strings, each through `parse`.
pub(super) fn each<T>(value: &DeValue<'_>, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let DeValue::Array(array) = value else { return Err(expected("a list of texts", value)) };
    array.iter().map(|entry| parse(text(entry.get_ref())?)).collect()
}

/// Formats a value as TOML on one line.
pub(super) fn one_line(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => quoted(text),
        toml::Value::Array(entries) => {
            format!("[{}]", entries.iter().map(one_line).collect::<Vec<_>>().join(", "))
        }
        toml::Value::Table(table) => {
            let entries = table.iter().map(|(name, value)| format!("{} = {}", name, one_line(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_) => {
            value.to_string()
        }
    }
}

/// Applies `change` to every string in a value.
pub(super) fn with_texts(value: toml::Value, change: &impl Fn(&str) -> String) -> toml::Value {
    match value {
        toml::Value::String(text) => change(&text).into(),
        toml::Value::Array(entries) => {
            toml::Value::Array(entries.into_iter().map(|entry| with_texts(entry, change)).collect())
        }
        other => other,
    }
}

pub(super) fn parsed<T: FromStr<Err: Display>>(value: &DeValue<'_>) -> Result<T, String> {
    text(value)?.parse().map_err(|error: T::Err| error.to_string())
}

pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err(expected("a text in quotes", other)),
    }
}

pub(super) fn expected(what: &str, got: &DeValue<'_>) -> String {
    let got = match got {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("expected {what}, got {got}")
}
