//! One event as filters see it. The data is parsed only when a filter first asks for it, and at most once.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env};
use contract::types;

use crate::Event;

/// Variables that an expression may use.
pub(super) const VARIABLES: [&str; 7] = ["type", "source", "subject", "id", "time", "data", "extensions"];

pub(super) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// One event, shared by all filters that look at it.
pub struct Look<'e> {
    event: &'e Event,
    data: OnceLock<Result<Data, String>>,
}

pub(super) struct Data {
    value: Box<dyn Val>,
    /// Number of entries of the longest list or object.
    pub(super) longest: usize,
}

pub(super) fn context<'v>() -> Context<'static, 'v> {
    Context::with_env(Arc::clone(&ENVIRONMENT))
}

impl<'e> Look<'e> {
    pub fn new(event: &'e Event) -> Self {
        Self { event, data: OnceLock::new() }
    }

    pub fn event(&self) -> &'e Event {
        self.event
    }

    pub(super) fn attribute_bytes(&self) -> usize {
        let types::Event { id, source, event_type, subject, time, extensions, .. } = &**self.event;
        let optional = [subject, time].into_iter().flatten().map(String::len).sum::<usize>();
        let extensions = extensions.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        id.len() + source.len() + event_type.len() + optional + extensions
    }

    pub(super) fn data_bytes(&self) -> usize {
        self.event.data.len()
    }

    pub(super) fn data(&self) -> Result<&Data, String> {
        let parse = || {
            // Parsing fails on data that is nested too deeply or has numbers that are too large.
            let json: serde_json::Value =
                serde_json::from_str(&self.event.data).map_err(|error| format!("its data cannot be read: {error}"))?;
            let mut longest = 0;
            Ok(Data { value: value_of(json, &mut longest), longest })
        };
        self.data.get_or_init(parse).as_ref().map_err(Clone::clone)
    }

    /// Whether any filter asked for the data.
    #[cfg(test)]
    pub(super) fn has_read_data(&self) -> bool {
        self.data.get().is_some()
    }
}

impl VariableResolver for Look<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let text = |text: &'b str| CowVal::owned(CelString::from(text));
        Some(match variable {
            "type" => text(&self.event.event_type),
            "source" => text(&self.event.source),
            "id" => text(&self.event.id),
            // Absent attributes are empty strings, so that a filter can always compare them with a string.
            "subject" => text(self.event.subject.as_deref().unwrap_or_default()),
            "time" => text(self.event.time.as_deref().unwrap_or_default()),
            "data" => CowVal::Borrowed(&*self.data().ok()?.value),
            "extensions" => {
                let entries = self.event.extensions.iter();
                let entries: HashMap<CelMapKey<'b>, Box<dyn Val + 'b>> = entries
                    .map(|(name, value)| {
                        let value: Box<dyn Val + 'b> = Box::new(CelString::from(value.as_str()));
                        (CelMapKey::from(name.as_str()), value)
                    })
                    .collect();
                CowVal::owned(CelMap::from(entries))
            }
            _ => return None,
        })
    }
}

/// Converts JSON to a CEL value. The recursion is bounded: the JSON parser allows at most 128 levels.
fn value_of(json: serde_json::Value, longest: &mut usize) -> Box<dyn Val> {
    match json {
        serde_json::Value::Null => Box::new(CelNull),
        serde_json::Value::Bool(value) => Box::new(CelBool::from(value)),
        serde_json::Value::Number(number) => {
            if let Some(number) = number.as_i64() {
                Box::new(CelInt::from(number))
            } else if let Some(number) = number.as_u64() {
                Box::new(CelUInt::from(number))
            } else {
                Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN)))
            }
        }
        serde_json::Value::String(text) => Box::new(CelString::from(text)),
        serde_json::Value::Array(entries) => {
            *longest = entries.len().max(*longest);
            let entries: Vec<_> = entries.into_iter().map(|entry| value_of(entry, longest)).collect();
            Box::new(CelList::from(entries))
        }
        serde_json::Value::Object(members) => {
            *longest = members.len().max(*longest);
            let members: HashMap<CelMapKey<'static>, Box<dyn Val>> =
                members.into_iter().map(|(name, value)| (CelMapKey::from(name), value_of(value, longest))).collect();
            Box::new(CelMap::from(members))
        }
    }
}
