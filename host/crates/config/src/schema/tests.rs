use std::collections::BTreeMap;
use std::time::Instant;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn settings(values: Value, lines: &[(&str, usize)]) -> Settings {
    let Value::Object(values) = values else { panic!("not an object") };
    let lines: BTreeMap<_, _> = lines.iter().map(|(pointer, line)| ((*pointer).to_owned(), *line)).collect();
    Settings { values, file: "plugins/email.toml".into(), lines }
}

fn completed(schema: &Value, values: Value) -> Result<Value, String> {
    let lines = [("", 5), ("/recipients", 7), ("/recipients/0", 8)];
    let lines: Vec<_> = lines.into_iter().filter(|(pointer, _)| values.pointer(pointer).is_some()).collect();
    complete_here(&schema.to_string(), &settings(values, &lines)).map(Value::Object).map_err(|error| error.to_string())
}

fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "required": ["recipients"],
        "$defs": { "host": {
            "type": "object",
            "additionalProperties": false,
            "properties": { "name": {"type": "string"}, "port": {"type": "integer", "default": 25} },
        }},
        "properties": {
            "recipients": { "type": "array", "minItems": 1, "items": {"type": "string", "pattern": "@"} },
            "format": { "enum": ["text", "html"], "default": "text" },
            "host": { "$ref": "#/$defs/host" },
            "limits": { "type": "object", "default": {}, "properties": {"size": {"type": "integer", "default": 9}} },
            "hosts": { "type": "array", "items": {"$ref": "#/$defs/host"} },
        },
    })
}

#[test]
fn defaults_are_filled_in_at_every_level_that_is_there() {
    let given = json!({"recipients": ["a@b"], "host": {"name": "mx"}, "hosts": [{"port": 1}, {}]});
    assert_eq!(
        completed(&schema(), given).unwrap(),
        json!({
            "recipients": ["a@b"], "format": "text", "host": {"name": "mx", "port": 25},
            "limits": {"size": 9}, "hosts": [{"port": 1}, {"port": 25}],
        })
    );
}

#[test]
fn each_fault_is_a_sentence_with_its_line_and_no_value() {
    for (values, expected) in [
        (json!({}), "plugins/email.toml:5: config.recipients: it is missing"),
        (json!({"recipients": "a@b"}), "plugins/email.toml:7: config.recipients: expected a list, got a text"),
        (json!({"recipients": ["hunter2"]}), "plugins/email.toml:8: config.recipients[0]: it does not match \"@\""),
        (json!({"recipients": [1]}), "plugins/email.toml:8: config.recipients[0]: expected a text, got a number"),
        (json!({"recipients": []}), "plugins/email.toml:7: config.recipients: it has less than 1 item"),
        (
            json!({"recipients": ["a@b"], "fromat": "html"}),
            "plugins/email.toml:5: config.fromat: unknown key; did you mean \"format\"?",
        ),
        (
            json!({"recipients": ["a@b"], "host": {"portt": 1}}),
            "plugins/email.toml:5: config.host.portt: unknown key; did you mean \"port\"?",
        ),
        (
            json!({"recipients": ["a@b"], "format": "pdf"}),
            "plugins/email.toml:5: config.format: expected one of \"text\", \"html\"",
        ),
        (
            json!({"recipients": [1], "format": "pdf"}),
            "plugins/email.toml:5: config.format: expected one of \"text\", \"html\"\n\
             plugins/email.toml:8: config.recipients[0]: expected a text, got a number",
        ),
    ] {
        assert_eq!(completed(&schema(), values.clone()).unwrap_err(), expected, "{values}");
    }
    let any = json!({"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}});
    let error = completed(&any, json!({"a": true})).unwrap_err();
    assert!(
        error.ends_with("expected a text, got true or false; or expected a whole number, got true or false"),
        "{error}"
    );
}

/// Builds a schema in which each level refers to the next one twice.
fn doubling(levels: usize, at: impl Fn(Value) -> Value) -> Value {
    let definition = |level: usize| {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        (format!("d{level}"), if level == levels { json!(true) } else { at(next) })
    };
    let definitions: Map<_, _> = (0..=levels).map(definition).collect();
    json!({"$defs": definitions, "$ref": "#/$defs/d0"})
}

#[test]
fn a_broken_or_hostile_schema_is_a_sentence_and_soon() {
    let deep = |levels: usize| format!("{}{{}}{}", "{\"not\":".repeat(levels), "}".repeat(levels));
    let patterns: Map<_, _> =
        (0..60).map(|number| (format!("p{number}"), json!({"pattern": "((a{9}){9}){9}"}))).collect();
    for (schema, problem) in [
        ("{".to_owned(), "not JSON"),
        (deep(500), "not JSON"),
        (deep(100), "nested deeper than 64"),
        ("[]".to_owned(), "not a JSON object"),
        (r#"{"type": "text"}"#.to_owned(), "its /type: "),
        (r##"{"$ref": "#"}"##.to_owned(), "\"#\" leads back to itself"),
        (
            r##"{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}"##.to_owned(),
            "leads back",
        ),
        (r#"{"$ref": "https://example.com/schema"}"#.to_owned(), "may refer to what is within it"),
        (r#"{"$ref": "file:///etc/passwd"}"#.to_owned(), "may refer to what is within it"),
        (r##"{"$ref": "#/$defs/none"}"##.to_owned(), "may refer to what is within it"),
        (r##"{"$dynamicRef": "#x"}"##.to_owned(), "it uses $dynamicRef"),
        (r#"{"properties": {"a": {"pattern": "("}}}"#.to_owned(), "/properties/a/pattern"),
        (r#"{"properties": {"a": {"pattern": "(?=a)b"}}}"#.to_owned(), "/properties/a/pattern"),
        (r#"{"properties": {"a": {"pattern": "((((a{99}){99}){99}){99})"}}}"#.to_owned(), "/properties/a/pattern"),
        (json!({"properties": {"a": {"pattern": "a".repeat(2000)}}}).to_string(), "regular expressions"),
        (
            json!({"patternProperties": (0..70).map(|n| (format!("p{n}"), json!(true))).collect::<Map<_, _>>()})
                .to_string(),
            "regular expressions",
        ),
        (doubling(17, |next| json!({"anyOf": [next, next]})).to_string(), "written out"),
        (doubling(15, |next| json!({"allOf": [next], "unevaluatedProperties": next})).to_string(), "written out"),
        (
            json!({"properties": {"a": {"type": "integer", "default": "x"}}}).to_string(),
            "its default for config.a does not fit: expected a whole number",
        ),
    ] {
        let begun = Instant::now();
        let error = complete_here(&schema, &settings(json!({}), &[])).expect_err(&schema);
        assert!(matches!(error, SettingsError::Schema(_)), "{error}");
        assert!(error.to_string().contains(problem), "{problem}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}: {error}", begun.elapsed());
    }
    // The worst schemas within the bounds compile quickly. Patterns that backtrack elsewhere run in linear time here.
    let begun = Instant::now();
    let values = json!({"p0": "a".repeat(100_000)});
    assert!(completed(&json!({"properties": patterns}), values).is_ok());
    let values = json!({"a": format!("{}!", "a".repeat(100_000))});
    assert!(completed(&json!({"properties": {"a": {"pattern": "^(a+)+$"}}}), values).is_err());
    assert!(completed(&doubling(10, |next| json!({"oneOf": [next, {"not": next}]})), json!({"a": 1})).is_ok());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_deepest_schema_that_is_let_in_does_not_overflow_the_stack() {
    let mut schema = json!({"type": "integer", "unevaluatedProperties": false});
    let mut values = json!(1);
    for _ in 0..30 {
        schema = json!({"properties": {"a": schema}});
        values = json!({"a": values});
    }
    let values = settings(values, &[]);
    assert!(complete(schema.to_string(), values).await.is_ok());
}

/// Generates schemas from schema keywords, sensible or not.
fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-2..3_i64).prop_map(Value::from),
        proptest::sample::select(vec![
            "string",
            "integer",
            "object",
            "#/$defs/a",
            "#/$defs/b",
            "#",
            "^(a|a)*$",
            "(",
            "a"
        ])
        .prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let keyword = proptest::sample::select(vec![
            "$ref",
            "$defs",
            "a",
            "b",
            "type",
            "properties",
            "patternProperties",
            "additionalProperties",
            "items",
            "prefixItems",
            "anyOf",
            "oneOf",
            "allOf",
            "not",
            "if",
            "then",
            "else",
            "required",
            "enum",
            "const",
            "default",
            "pattern",
            "minLength",
            "multipleOf",
            "uniqueItems",
            "contains",
            "minContains",
            "dependentSchemas",
            "dependentRequired",
            "propertyNames",
            "unevaluatedProperties",
            "unevaluatedItems",
            "format",
            "$id",
            "$schema",
            "$anchor",
            "$vocabulary",
            "contentSchema",
            "discriminator",
            "^a",
            "[",
        ]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((keyword, inner), 0..5)
                .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_schema_is_answered_soon(schema in any_schema()) {
        let begun = Instant::now();
        let values = json!({"a": {"a": [1, "a", {"b": null}]}, "b": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"});
        if let Err(error) = complete_here(&schema.to_string(), &settings(values, &[])) {
            prop_assert!(!error.to_string().is_empty());
        }
        prop_assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
