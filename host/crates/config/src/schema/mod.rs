//! A plugin's own JSON Schema (2020-12) for its `[config]`: what is missing is filled in with its defaults,
//! and each fault is told with its line.
//!
//! The schema comes from the plugin, so that it must not hurt: it refers to nothing outside of itself, its
//! regular expressions take linear time, and [`bounds`] knows beforehand how much work it can make.

mod bounds;
mod defaults;
mod sentence;

use std::thread;
use std::time::Duration;

use jsonschema::{Draft, PatternOptions};
use serde_json::{Map, Value};

pub use crate::schema::sentence::kind_name;
use crate::settings::Settings;

/// It takes milliseconds; this is for what nobody thought of. So long that it is not the machine that is busy: a thread
/// that gets stuck goes on, and must not be joined by another at each try.
const TIME_MAX: Duration = Duration::from_secs(30);
/// The validator goes down as deep as the schema does, a few kilobytes each.
const STACK_BYTES: usize = 16 << 20;
/// One regular expression, compiled.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Of one file, shown.
const FAULTS_MAX: usize = 20;

/// Why the settings are no good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The operator's fault: a line for each, with its place.
    #[error("{0}")]
    Faults(String),
    /// The plugin's own.
    #[error("its config schema is no use: {0}")]
    Schema(String),
    /// The machine's.
    #[error("its settings cannot be checked: {0}")]
    NotChecked(String),
}

/// The settings with the schema's defaults, once they fit it.
pub async fn complete(schema: String, settings: Settings) -> Result<Map<String, Value>, SettingsError> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    // A thread that gets stuck must be no thread of the runtime's.
    let work = move || drop(answer.send(complete_here(&schema, &settings)));
    let refused = |error: &dyn std::fmt::Display| SettingsError::Schema(error.to_string());
    thread::Builder::new()
        .name("schema".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map_err(|error| SettingsError::NotChecked(format!("no thread can be started for it: {error}")))?;
    match tokio::time::timeout(TIME_MAX, answered).await {
        Ok(Ok(completed)) => completed,
        // The sender is gone: the thread panicked.
        Ok(Err(_)) => Err(refused(&"the validator failed at it")),
        Err(_) => Err(refused(&format_args!("it takes longer than {} s", TIME_MAX.as_secs()))),
    }
}

fn complete_here(schema: &str, settings: &Settings) -> Result<Map<String, Value>, SettingsError> {
    let schema: Value =
        serde_json::from_str(schema).map_err(|error| SettingsError::Schema(format!("it is not JSON: {error}")))?;
    bounds::check(&schema).map_err(SettingsError::Schema)?;
    let validator = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX))
        .offline()
        .build(&schema)
        .map_err(|error| SettingsError::Schema(sentence::of_schema(&error)))?;
    let mut values = settings.values.clone();
    defaults::fill(&schema, &schema, &mut values);
    let (given, completed) = (Value::Object(settings.values.clone()), Value::Object(values));
    let faults: Vec<_> =
        validator.iter_errors(&completed).take(FAULTS_MAX).flat_map(|error| sentence::of(&error, &schema)).collect();
    let was_filled_in = |pointer: &str| given.pointer(pointer).is_none() && completed.pointer(pointer).is_some();
    if let Some(fault) = faults.iter().find(|fault| was_filled_in(&fault.pointer)) {
        let problem = format!("its default for {} does not fit: {}", fault.key(), fault.problem);
        return Err(SettingsError::Schema(problem));
    }
    if faults.is_empty() {
        let Value::Object(values) = completed else { return Ok(Map::new()) };
        return Ok(values);
    }
    let mut lines: Vec<_> = faults
        .iter()
        .map(|fault| format!("{}: {}: {}", settings.place(&fault.pointer), fault.key(), fault.problem))
        .collect();
    lines.dedup();
    Err(SettingsError::Faults(lines.join("\n")))
}

#[cfg(test)]
mod tests;
