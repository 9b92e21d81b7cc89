//! Text for people. Text from outside is escaped before it reaches a terminal.

use std::fmt::{self, Write as _};

/// Puts a text on one line and escapes terminal control sequences.
pub fn shown(text: &str) -> String {
    printable(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Formats a count: `1 dead letter`, `2 dead letters`.
pub fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// Escapes the active characters that JSON leaves as they are. They occur only within strings.
pub fn printable_json(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    for character in json.chars() {
        if is_active(character) {
            // Writing to a String does not fail.
            let _ = write!(printable, "\\u{:04x}", u32::from(character));
        } else {
            printable.push(character);
        }
    }
    printable
}

/// Escapes control characters and indents further lines. Text from outside must not control the operator's terminal,
/// nor look like one of the host's own lines.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    // Writing to a String does not fail.
    let _ = Printable::new(&mut printable).write_str(text);
    printable
}

/// A writer that makes its input [`printable`].
pub struct Printable<'a> {
    out: &'a mut String,
    /// Pending line breaks. They are written only when more text follows.
    newlines: usize,
}

impl fmt::Write for Printable<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if is_plain(text) {
            if !text.is_empty() {
                self.begin_lines();
                self.out.push_str(text);
            }
            return Ok(());
        }
        for character in text.chars() {
            if character == '\n' {
                self.newlines += 1;
                continue;
            }
            self.begin_lines();
            match character {
                '\t' => self.out.push('\t'),
                active if is_active(active) => self.out.extend(active.escape_default()),
                other => self.out.push(other),
            }
        }
        Ok(())
    }
}

impl<'a> Printable<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut String) -> Self {
        Self { out, newlines: 0 }
    }

    fn begin_lines(&mut self) {
        for _ in 0..std::mem::take(&mut self.newlines) {
            self.out.push_str("\n    ");
        }
    }
}

/// Number of bytes that are checked together.
const PIECE_BYTES: usize = 64;

/// Whether the text consists of printable ASCII only, as most lines do. Such text needs no escaping.
pub fn is_plain(text: &str) -> bool {
    // In pieces without an early exit, so that the compiler can vectorise the comparison.
    let is_plain = |piece: &[u8]| piece.iter().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'));
    text.as_bytes().chunks(PIECE_BYTES).all(is_plain)
}

/// Whether a terminal acts on the character instead of showing it. Marks that change the direction of writing count:
/// they can make a line look like another.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_drive_a_terminal_or_forge_a_line() {
        assert_eq!(printable("a\u{1b}[2Jb\r\u{9b}c"), "a\\u{1b}[2Jb\\r\\u{9b}c");
        assert_eq!(printable("one\n2026 INFO two\n"), "one\n    2026 INFO two");
        assert_eq!(printable("Получено\t…"), "Получено\t…");
        assert_eq!(printable("\n\none\n\n"), "\n    \n    one");
        let (piece, rest) = ("x".repeat(PIECE_BYTES), "y".repeat(PIECE_BYTES / 2));
        assert_eq!(
            printable(&format!("{piece}{rest}\u{7f}")),
            format!("{piece}{rest}\\u{{7f}}"),
            "beyond the first piece"
        );
    }

    #[test]
    fn a_shown_text_is_one_line() {
        assert_eq!(shown("one\n\ttwo\x1b[2J \u{202e}x"), "one two\\u{1b}[2J \\u{202e}x");
    }

    #[test]
    fn json_cannot_drive_a_terminal_either() {
        let text = "a\u{1b}[2J\r\n\u{9b}c\u{202e}\u{7f}…";
        let json = printable_json(&serde_json::to_string(text).unwrap());
        assert_eq!(json, r#""a\u001b[2J\r\n\u009bc\u202e\u007f…""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
