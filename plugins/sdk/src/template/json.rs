//! Values in a template that produces JSON.
//!
//! Only the complete text shows whether a value is inside quotes. So each value is first written as JSON between two
//! marks. The marks are control characters, which JSON never contains unescaped, inside or outside values.

use serde::de::IgnoredAny;

/// Mark before a value.
pub(super) const BEGIN: char = '\u{1}';
/// Mark after a value.
pub(super) const END: char = '\u{2}';

/// Inserts the values: inside quotes as text, elsewhere unchanged.
pub(super) fn finish(text: &str) -> Result<String, serde_json::Error> {
    let mut json = String::with_capacity(text.len());
    let mut quotes = Quotes::default();
    for piece in text.split_inclusive(END) {
        // Without a value at its end, this piece is the end of the text.
        let marked = piece.strip_suffix(END).and_then(|piece| piece.split_once(BEGIN));
        let (before, value) = marked.map_or((piece, None), |(before, value)| (before, Some(value)));
        before.chars().for_each(|character| quotes.pass(character));
        json.push_str(before);
        match value {
            Some(value) if quotes.are_open => json.push_str(&inside(value)),
            Some(value) => json.push_str(value),
            None => {}
        }
    }
    serde_json::from_str::<IgnoredAny>(&json)?;
    Ok(json)
}

/// Returns a value as part of a JSON string.
fn inside(value: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(value) {
        // Strip its quotes, because the template has quotes already.
        Ok(serde_json::Value::String(_)) => value[1..value.len() - 1].to_owned(),
        Ok(serde_json::Value::Null) => String::new(),
        _ => {
            let text = serde_json::Value::String(value.to_owned()).to_string();
            text[1..text.len() - 1].to_owned()
        }
    }
}

/// Tracks whether a position in JSON is inside a string.
#[derive(Debug, Default)]
struct Quotes {
    are_open: bool,
    is_escaped: bool,
}

impl Quotes {
    fn pass(&mut self, character: char) {
        match character {
            _ if self.is_escaped => self.is_escaped = false,
            '\\' if self.are_open => self.is_escaped = true,
            '"' => self.are_open = !self.are_open,
            _ => {}
        }
    }
}
