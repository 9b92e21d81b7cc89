//! Validates a plugin's `[config]` against the JSON Schema (2020-12) that the plugin brings. Missing values are filled
//! in from the schema's defaults, and each fault is reported with its line.
//!
//! The schema comes from the plugin, so it is not trusted: it may refer to nothing outside itself, its regular
//! expressions run in linear time, and [`bounds`] limits the work it can cause before it is compiled.

mod bounds;
mod defaults;
mod sentence;

use std::thread;
use std::time::Duration;

use jsonschema::{Draft, PatternOptions};
use serde_json::{Map, Value};

pub use crate::schema::sentence::kind_name;
use crate::settings::Settings;

/// Time limit of one validation, a last resort: it normally takes milliseconds. The limit is this long so that a busy
/// machine cannot reach it. A thread that exceeds it keeps running, and every further try may add another one.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Stack size in bytes of the validating thread. The validator recurses as deep as the schema, a few kilobytes per
/// level.
const STACK_BYTES: usize = 16 << 20;
/// Maximum bytes of one compiled regular expression.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Maximum number of faults shown for one file.
const FAULTS_MAX: usize = 20;

/// Why the settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The operator's mistake: one line per fault, each with its place.
    #[error("{0}")]
    Faults(String),
    /// The plugin's mistake: its schema is unusable.
    #[error("its config schema is no use: {0}")]
    Schema(String),
    /// The machine's fault: no thread could be started.
    #[error("its settings cannot be checked: {0}")]
    NotChecked(String),
}

/// Checks the settings against the schema and returns them with the schema's defaults filled in.
pub async fn complete(schema: String, settings: Settings) -> Result<Map<String, Value>, SettingsError> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    // On a thread of its own: one that gets stuck must not block a thread of the runtime.
    let work = move || drop(answer.send(complete_here(&schema, &settings)));
    let refused = |error: &dyn std::fmt::Display| SettingsError::Schema(error.to_string());
    thread::Builder::new()
        .name("schema".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map_err(|error| SettingsError::NotChecked(format!("no thread can be started for it: {error}")))?;
    match tokio::time::timeout(TIME_MAX, answered).await {
        Ok(Ok(completed)) => completed,
        // The sender was dropped, so the thread panicked.
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
