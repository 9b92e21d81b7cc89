//! Fills in a schema's defaults, at the top level and within objects that are present.

use serde_json::{Map, Value};

use crate::schema::bounds::follow;

/// Adds the missing defaults to `values`. `root` must have passed [`super::bounds`]: it is bounded and has no cycles.
pub(super) fn fill(root: &Value, schema: &Value, values: &mut Map<String, Value>) {
    if let Some(target) = schema["$ref"].as_str().and_then(|reference| follow(root, reference)) {
        fill(root, target, values);
    }
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            if !values.contains_key(name)
                && let Some(default) = default_of(root, property)
            {
                values.insert(name.clone(), default.clone());
            }
            if let Some(value) = values.get_mut(name) {
                fill_within(root, property, value);
            }
        }
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        fill(root, part, values);
    }
}

fn fill_within(root: &Value, schema: &Value, value: &mut Value) {
    match value {
        Value::Object(values) => fill(root, schema, values),
        Value::Array(entries) => {
            let items = schema["$ref"].as_str().and_then(|reference| follow(root, reference)).unwrap_or(schema);
            for entry in entries {
                fill_within(root, &items["items"], entry);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn default_of<'s>(root: &'s Value, schema: &'s Value) -> Option<&'s Value> {
    schema.get("default").or_else(|| default_of(root, follow(root, schema.get("$ref")?.as_str()?)?))
}
