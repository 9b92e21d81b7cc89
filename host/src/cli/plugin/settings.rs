//! A plugin's settings as its schema describes them: for people, and as a `[config]` to start from.

use config::kind_name;
use event::text::shown;
use serde_json::Value;

/// One top-level key of `[config]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) name: String,
    /// Type for people: `a text`, `"text" or "json"`.
    pub(super) kind: String,
    pub(super) is_required: bool,
    pub(super) default: Option<Value>,
    pub(super) description: String,
}

/// Reads the settings from the schema. The error says that it is not JSON.
pub(super) fn settings(schema: &str) -> Result<Vec<Setting>, String> {
    let schema: Value =
        serde_json::from_str(schema).map_err(|error| format!("its config schema is not JSON: {error}"))?;
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let setting = |(name, property): (&String, &Value)| Setting {
        name: name.clone(),
        kind: kind(property),
        is_required: required.contains(&name.as_str()),
        default: property.get("default").cloned(),
        description: property["description"].as_str().unwrap_or_default().to_owned(),
    };
    Ok(properties.map(setting).collect())
}

impl Setting {
    /// Describes the setting: `a text, by default "x": what it is for`.
    pub(super) fn sentence(&self) -> String {
        let mut sentence = self.kind.clone();
        if let Some(default) = &self.default {
            sentence = format!("{sentence}, by default {default}");
        } else if self.is_required {
            sentence.push_str(", required");
        }
        if self.description.is_empty() { sentence } else { format!("{sentence}: {}", self.description) }
    }

    /// Formats the setting as TOML: `format = "text"`, with a `#` before it unless it is required.
    pub(super) fn line(&self) -> String {
        let value = self.default.clone().unwrap_or_else(|| example(&self.kind));
        // TOML has no null; the operator must fill in a value.
        let value = toml::Value::try_from(value).map_or_else(|_| "\"\"".to_owned(), |value| value.to_string());
        let name = toml_edit::Key::new(&self.name).display_repr().into_owned();
        format!("{}{} = {}", if self.is_required { "" } else { "# " }, shown(&name), shown(&value))
    }
}

fn kind(property: &Value) -> String {
    if let Some(options) = property["enum"].as_array() {
        return options.iter().map(Value::to_string).collect::<Vec<_>>().join(" or ");
    }
    match &property["type"] {
        Value::String(kind) => kind_name(kind).to_owned(),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).map(kind_name).collect::<Vec<_>>().join(" or "),
        _ => "anything".to_owned(),
    }
}

fn example(kind: &str) -> Value {
    match kind {
        "a whole number" | "a number" => 0.into(),
        "true or false" => false.into(),
        "a list" => Value::Array(Vec::new()),
        "a table" => Value::Object(serde_json::Map::new()),
        // The first of the allowed values.
        options if options.starts_with('"') => {
            serde_json::from_str(options.split(" or ").next().unwrap_or_default()).unwrap_or_default()
        }
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_told_in_sentences_and_as_lines_to_write() {
        let schema = r#"{"required": ["to"], "properties": {
            "format": {"enum": ["text", "html"], "default": "text", "description": "how it looks"},
            "to": {"type": "array"}, "size": {"type": "integer"}, "or": {"type": ["string", "null"], "default": null},
            "a b": {"enum": ["x", "y"]}}}"#;
        let settings = settings(schema).unwrap();
        let told: Vec<_> = settings.iter().map(|setting| (setting.line(), setting.sentence())).collect();
        let told: Vec<_> = told.iter().map(|(line, sentence)| (line.as_str(), sentence.as_str())).collect();
        assert_eq!(
            told,
            [
                ("# \"a b\" = \"x\"", "\"x\" or \"y\""),
                ("# format = \"text\"", "\"text\" or \"html\", by default \"text\": how it looks"),
                ("# or = \"\"", "a text or nothing, by default null"),
                ("# size = 0", "a whole number"),
                ("to = []", "a list, required"),
            ]
        );
        assert!(super::settings("{").unwrap_err().contains("not JSON"));
    }
}
