//! Values in a text that becomes JSON.
//!
//! Whether a value stands inside of quotes is known only once all of the text is there. So each is written as JSON
//! between two marks, which are control characters: JSON has none as they are, neither in the values nor around them.

use serde::de::IgnoredAny;

/// Before a value.
pub(super) const BEGIN: char = '\u{1}';
/// After it.
pub(super) const END: char = '\u{2}';

/// Puts the values in: inside of quotes as text, elsewhere as they are.
pub(super) fn finish(text: &str) -> Result<String, serde_json::Error> {
    let mut json = String::with_capacity(text.len());
    let mut quotes = Quotes::default();
    for piece in text.split_inclusive(END) {
        // What has no value at its end is the end of the text.
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

/// A value as a part of a JSON string.
fn inside(value: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(value) {
        // It has quotes of its own, which the place has already.
        Ok(serde_json::Value::String(_)) => value[1..value.len() - 1].to_owned(),
        Ok(serde_json::Value::Null) => String::new(),
        _ => {
            let text = serde_json::Value::String(value.to_owned()).to_string();
            text[1..text.len() - 1].to_owned()
        }
    }
}

/// Whether a place in JSON is inside of a string.
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
