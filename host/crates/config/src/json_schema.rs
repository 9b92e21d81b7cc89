//! Generates the JSON Schema (2020-12) of a file for editors, from the keys that the reader asks for.

use serde_json::{Map, Value, json};

use crate::key::{Inventory, KeyEntry, Kind};

/// Pattern that every duration and size matches.
const WITH_A_NUMBER: &str = "[0-9]";

pub(super) fn of(inventory: &Inventory, title: &str) -> Value {
    let mut schema = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "title": title });
    add(&mut schema, object(inventory, ""));
    schema
}

fn object(inventory: &Inventory, within: &str) -> Value {
    let keys: Vec<_> = inventory.within(within).collect();
    let properties: Map<_, _> =
        keys.iter().map(|asked| (asked.key.name.to_owned(), property(inventory, asked))).collect();
    let required: Vec<_> = keys.iter().filter(|asked| asked.key.is_required).map(|asked| asked.key.name).collect();
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        add(&mut object, json!({ "required": required }));
    }
    object
}

fn property(inventory: &Inventory, asked: &KeyEntry) -> Value {
    let path = asked.path();
    let text = json!({ "type": "string" });
    let texts = json!({ "type": "array", "items": text });
    let (mut property, form) = match &asked.kind {
        Kind::Text if !asked.key.choices.is_empty() => (json!({ "enum": asked.key.choices }), String::new()),
        Kind::Text | Kind::Path => (text, String::new()),
        Kind::Texts | Kind::Paths => (texts, String::new()),
        Kind::TextOrTexts => (json!({ "anyOf": [text, texts] }), String::new()),
        Kind::Boolean => (json!({ "type": "boolean" }), String::new()),
        Kind::Number(range) => {
            (json!({ "type": "integer", "minimum": range.start, "maximum": range.end - 1 }), String::new())
        }
        Kind::Ratio => (json!({ "type": "number", "minimum": 0, "maximum": 1 }), String::new()),
        Kind::Duration(_) | Kind::Bytes(_) => {
            (json!({ "type": "string", "pattern": WITH_A_NUMBER }), asked.kind.bounds().unwrap_or_default())
        }
        Kind::Table => (object(inventory, &format!("{path}.")), String::new()),
        Kind::TextOrTable => (json!({ "anyOf": [text, object(inventory, &format!("{path}."))] }), String::new()),
        Kind::Tables => (json!({ "type": "array", "items": object(inventory, &format!("{path}[].")) }), String::new()),
        Kind::NamedTables => {
            let each = object(inventory, &format!("{path}.*."));
            (json!({ "type": "object", "additionalProperties": each }), String::new())
        }
        Kind::Anything => (json!({ "type": "object" }), String::new()),
    };
    let sentences = [
        asked.key.doc.to_owned(),
        form,
        asked.key.otherwise.map_or_else(String::new, |it| format!("Without it: {it}")),
    ];
    let sentences: Vec<_> = sentences.into_iter().filter(|sentence| !sentence.is_empty()).collect();
    add(&mut property, json!({ "description": format!("{}.", sentences.join(". ")) }));
    if let Some(default) = asked.key.default {
        add(&mut property, json!({ "default": asked.kind.json(default) }));
    }
    if let Some(example) = asked.key.example {
        add(&mut property, json!({ "examples": [asked.kind.json(example)] }));
    }
    property
}

fn add(schema: &mut Value, more: Value) {
    if let (Some(schema), Value::Object(more)) = (schema.as_object_mut(), more) {
        schema.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jsonschema::Draft;

    use super::*;
    use crate::{HostConfig, PluginConfig, Policies, example};

    type Parse = fn(&str) -> Result<(), String>;

    fn schemas() -> [(Value, Inventory, Parse); 2] {
        let host = |text: &str| HostConfig::parse(Path::new("x.toml"), text).map(drop);
        let plugin =
            |text: &str| PluginConfig::of_text(Path::new("x.toml"), Some(text), &Policies::default()).map(drop);
        [(HostConfig::keys(), host as Parse), (PluginConfig::keys(), plugin)]
            .map(|(keys, parse)| (of(&keys, "x"), keys, parse))
    }

    /// Collects each object of the schema with a file that makes the reader reach it and that has an unknown key there.
    fn tables(schema: &Value, heading: &str, all: &mut Vec<(String, Vec<String>)>) {
        for schema in schema["anyOf"].as_array().unwrap_or(&vec![schema.clone()]) {
            let Some(properties) = schema["properties"].as_object() else { continue };
            let heading_line = if heading.is_empty() { String::new() } else { format!("{heading}\n") };
            all.push((format!("{heading_line}zzzzzzzz = 1\n"), properties.keys().cloned().collect()));
            let path = heading.trim_matches(['[', ']']);
            for (name, property) in properties {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                tables(property, &format!("[{below}]"), all);
                tables(&property["items"], &format!("[[{below}]]"), all);
                tables(&property["additionalProperties"], &format!("[{below}.a]"), all);
            }
        }
    }

    #[test]
    fn the_schemas_know_the_keys_that_the_reader_knows() {
        let mut counts = Vec::new();
        for (schema, _, parse) in schemas() {
            let mut all = Vec::new();
            tables(&schema, "", &mut all);
            counts.push(all.len());
            for (file, mut keys) in all {
                let error = parse(&file).unwrap_err();
                let line = error.lines().find(|line| line.contains("zzzzzzzz")).unwrap();
                let (_, known) = line.split_once("expected one of ").unwrap();
                let mut known: Vec<_> = known.split(", ").filter(|key| !is_refused(key, &file)).collect();
                known.sort_unstable();
                known.dedup();
                keys.sort_unstable();
                assert_eq!(keys, known, "{file}");
            }
        }
        assert!(counts[0] >= 10 && counts[1] >= 8, "{counts:?}");
    }

    /// Whether this is the removed key, which the reader refuses with a message of its own.
    fn is_refused(key: &str, file: &str) -> bool {
        key == "secret" && file.starts_with("[grants]")
    }

    #[test]
    fn a_schema_lets_good_files_through_and_no_bad_ones() {
        let [(host, keys, _), (plugin, ..)] = schemas();
        let check = |schema: &Value, text: &str, is_good: bool| {
            let validator = jsonschema::options().with_draft(Draft::Draft202012).offline().build(schema).unwrap();
            let value: Value = toml::from_str(text).unwrap();
            let faults: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert_eq!(faults.is_empty(), is_good, "{text}: {faults:?}");
        };
        let example = example::of_host(&keys);
        check(&host, &example, true);
        check(&host, &example::without_comments(&example), true);
        let mut count = 0;
        for document in [
            include_str!("../../../../docs/pacing.md"),
            include_str!("../../../../README.md"),
            include_str!("../../../../docs/mail.md"),
        ] {
            for block in document.split("```").skip(1).step_by(2) {
                let (kind, text) = block.split_once('\n').unwrap();
                let is_host = kind == "toml host"
                    || text.contains("[mail]")
                    || text.contains("[source]")
                    || text.contains("[mail.dkim]");
                if kind.starts_with("toml") && !text.contains("[mail.dkim]") {
                    check(if is_host { &host } else { &plugin }, text, true);
                    count += 1;
                }
            }
        }
        assert!(count >= 12, "{count}");
        for text in [
            "prefetch = 0",
            "prefetch = \"5\"",
            "drain-timeout = 5",
            "drain-timeout = \"soon\"",
            "brokr = \"amqp://x\"",
            "broker = 5",
            "[source]\nexchange-type = \"headers\"",
            "[mail]\nrelay = \"smtp://x\"",
            "rate = {}",
            "log-level = \"loud\"",
            "[journal]\nenabled = \"yes\"",
            "quiet-hours = true",
        ] {
            check(&host, text, false);
        }
        for text in [
            "enabled = 1",
            "[[subscriptions]]\nsource = \"x\"",
            "[secrets.a]\nenv = \"A\"\nx = 1",
            "[limits]\ntime = 5",
            "[grants]\nhttp = \"https://x\"",
            "config = 5",
            "[retry]\nattempts = 1001",
        ] {
            check(&plugin, text, false);
        }
        check(
            &plugin,
            "[secrets.a]\nenv = \"A\"\n[config]\nanything = { x = 1 }\n[[subscriptions]]\nevent-type = \"#\"",
            true,
        );
    }

    #[test]
    fn every_key_says_what_it_means_and_what_holds_without_it() {
        for (_, keys, _) in schemas() {
            for asked in &keys.0 {
                let (path, key) = (asked.path(), asked.key);
                assert!(
                    key.doc.starts_with(|first: char| first.is_ascii_uppercase() || !first.is_alphabetic()),
                    "{path}: {}",
                    key.doc
                );
                assert!(!key.doc.ends_with('.') && !key.doc.is_empty(), "{path}");
                let is_known = [key.default.is_some(), key.otherwise.is_some(), key.is_required, key.is_instead];
                let is_free = ["wasm", "sha256", "filter"].contains(&key.name) || key.name == "file";
                assert!(!asked.kind.is_value() || is_free || is_known.contains(&true), "{path}");
            }
        }
    }
}
