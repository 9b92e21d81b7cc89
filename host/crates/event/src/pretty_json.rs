//! Lays out JSON for people without parsing it: names, numbers and strings keep their spelling and order. Parsing and
//! writing it again would round large numbers.

use serde_json::value::RawValue;

const STEP: &str = "  ";
/// Maximum indentation depth. Deeper content stays on one line, so that indentation cannot multiply the length.
const LEVELS_MAX: usize = 40;

/// Formats JSON with one member per line.
pub fn indent(json: &RawValue) -> String {
    let mut text = String::with_capacity(json.get().len() * 2);
    let mut level = 0_usize;
    let mut in_text = false;
    let mut escaped = false;
    let mut characters = json.get().chars().peekable();
    let line = |text: &mut String, level: usize| {
        if level <= LEVELS_MAX {
            text.push('\n');
            (0..level).for_each(|_| text.push_str(STEP));
        }
    };
    while let Some(character) = characters.next() {
        if in_text {
            text.push(character);
            in_text = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            ' ' | '\t' | '\n' | '\r' => {}
            '{' | '[' => {
                text.push(character);
                while characters.next_if(|next| matches!(next, ' ' | '\t' | '\n' | '\r')).is_some() {}
                if let Some(close) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(close);
                } else {
                    level += 1;
                    line(&mut text, level);
                }
            }
            '}' | ']' => {
                // No line break before the closing bracket of content that stayed on one line.
                let inner = level;
                level = level.saturating_sub(1);
                if inner <= LEVELS_MAX {
                    line(&mut text, level);
                }
                text.push(character);
            }
            ',' => {
                text.push(character);
                line(&mut text, level);
            }
            ':' => text.push_str(": "),
            _ => {
                in_text = character == '"';
                text.push(character);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn indented(json: &str) -> String {
        indent(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn members_have_lines_and_nothing_else_changes() {
        let json = r#"{"zeta":12345678901234567890123 , "a":[ ],"text":"a{\"b, c\\","list":[1.10,{ }],"e":1e999}"#;
        let expected = "{\n  \"zeta\": 12345678901234567890123,\n  \"a\": [],\n  \"text\": \"a{\\\"b, c\\\\\",\n  \
                        \"list\": [\n    1.10,\n    {}\n  ],\n  \"e\": 1e999\n}";
        assert_eq!(indented(json), expected);
        assert_eq!(indented("  17 "), "17");
    }

    #[test]
    fn depth_does_not_multiply_the_length() {
        let json = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(indented(&json).len() < json.len() + 10_000);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 50, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_means_the_same_and_looks_as_serde_json_would_have_it(value in any_json()) {
            let text = indented(&value.to_string());
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value.clone());
            prop_assert_eq!(text, serde_json::to_string_pretty(&value).unwrap());
        }
    }
}
