//! Makes text from outside fit for display.

/// Maximum characters of a [`snippet`].
pub const SNIPPET_CHARACTERS_MAX: usize = 200;

/// Returns the beginning of a text from outside, on one line and without control characters, for an outcome's reason.
///
/// ```
/// assert_eq!(notify_plugin::snippet(b"no such\r\n\x1b[31mhook"), "no such [31mhook");
/// ```
pub fn snippet(text: &[u8]) -> String {
    // A character has at most four bytes, so later bytes cannot matter.
    let is_cut = text.len() > SNIPPET_CHARACTERS_MAX * 16;
    let text = String::from_utf8_lossy(&text[..text.len().min(SNIPPET_CHARACTERS_MAX * 16)]);
    let mut snippet = String::new();
    let mut left = SNIPPET_CHARACTERS_MAX;
    let mut gap = false;
    for character in text.chars() {
        if character.is_whitespace() || character.is_control() || is_invisible(character) {
            gap = !snippet.is_empty();
            continue;
        }
        let needed = 1 + usize::from(gap);
        if left < needed {
            snippet.push('…');
            return snippet;
        }
        left -= needed;
        if std::mem::take(&mut gap) {
            snippet.push(' ');
        }
        snippet.push(character);
    }
    if is_cut {
        snippet.push('…');
    }
    snippet
}

/// Returns whether a character shows nothing but may reorder its neighbours.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snippet_is_one_line_without_orders_for_a_terminal() {
        for (text, expected) in [
            (&b""[..], ""),
            (b"  \r\n ", ""),
            (b" not\tfound\r\n\r\nhere ", "not found here"),
            (b"\x1b[2J\x07hi\x00", "[2J hi"),
            ("a\u{202e}b\u{9b}31mc".as_bytes(), "a b 31mc"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(snippet(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_snippet_is_short_whatever_comes() {
        for text in ["x".repeat(1 << 20), "ä ".repeat(5000), "\u{1f980}".repeat(201), " ".repeat(9000) + "x"] {
            let snippet = snippet(text.as_bytes());
            assert!(snippet.chars().count() <= SNIPPET_CHARACTERS_MAX + 1, "{snippet}");
            assert!(snippet.ends_with('…'), "{snippet}");
        }
        assert_eq!(snippet("x".repeat(200).as_bytes()), "x".repeat(200));
    }
}
