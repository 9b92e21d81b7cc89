//! Escapes a text for a service and cuts it to that service's limit.
//!
//! The limit applies to the escaped text, and no escape is cut in two.

const ELLIPSIS: char = '…';

/// Unit of a service's limit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Bytes,
    /// UTF-16 code units. Never fewer than characters, so a safe choice if the documents only say "characters".
    Utf16,
}

impl Unit {
    pub(crate) fn size(self, text: &str) -> usize {
        match self {
            Self::Bytes => text.len(),
            Self::Utf16 => text.encode_utf16().count(),
        }
    }
}

/// Writes one character in a form without special meaning, given the character before it.
pub(crate) type Escape = fn(Option<char>, char, &mut String);

/// Writes it unchanged, for services that read plain text.
pub(crate) fn as_it_is(_before: Option<char>, character: char, out: &mut String) {
    out.push(character);
}

/// Escapes for HTML, in text and in attributes.
pub(crate) fn html(_before: Option<char>, character: char, out: &mut String) {
    match character {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        other => out.push(other),
    }
}

/// Escapes for Markdown, in which ASCII punctuation after a backslash is literal.
pub(crate) fn markdown(_before: Option<char>, character: char, out: &mut String) {
    if character.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(character);
}

/// Writes an `@`, followed by an invisible character so that the name after it is not mentioned. An `@` inside an
/// address mentions nobody and stays as it is.
pub(crate) fn at(before: Option<char>, out: &mut String) {
    out.push('@');
    if !before.is_some_and(|before| before.is_ascii_alphanumeric()) {
        out.push('\u{200b}');
    }
}

pub(crate) fn escaped(text: &str, escape: Escape) -> String {
    fit(text, usize::MAX, Unit::Bytes, escape)
}

/// Returns the escaped text, with an ellipsis if it had to be cut.
pub(crate) fn fit(text: &str, max: usize, unit: Unit, escape: Escape) -> String {
    let ellipsis = unit.size(ELLIPSIS.encode_utf8(&mut [0; 4]));
    let (mut out, mut size, mut before) = (String::new(), 0, None);
    // End of the longest prefix that leaves room for the ellipsis.
    let mut cut = 0;
    for character in text.chars() {
        let start = out.len();
        escape(before, character, &mut out);
        size += unit.size(&out[start..]);
        before = Some(character);
        if size > max {
            out.truncate(cut);
            if ellipsis <= max {
                out.push(ELLIPSIS);
            }
            return out;
        }
        if size + ellipsis <= max {
            cut = out.len();
        }
    }
    out
}

/// Remainder of a limit that several texts share.
pub(crate) struct Room {
    left: usize,
    unit: Unit,
    escape: Escape,
}

impl Room {
    pub(crate) fn new(left: usize, unit: Unit, escape: Escape) -> Self {
        Self { left, unit, escape }
    }

    /// Returns as much of the text as fits, escaped.
    pub(crate) fn take(&mut self, text: &str, max: usize) -> String {
        let text = fit(text, max.min(self.left), self.unit, self.escape);
        self.left -= self.unit.size(&text);
        text
    }

    /// Reserves room for markup, which cannot be cut. Returns whether it fits.
    pub(crate) fn takes(&mut self, markup: &str) -> bool {
        let left = self.left.checked_sub(self.unit.size(markup));
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNITS: [Unit; 2] = [Unit::Bytes, Unit::Utf16];
    const ESCAPES: [Escape; 3] = [as_it_is, html, markdown];

    #[test]
    fn what_is_too_long_is_cut_between_characters_with_an_ellipsis() {
        for (text, max, unit, escape, expected) in [
            ("abc", 3, Unit::Utf16, as_it_is as Escape, "abc"),
            ("abcd", 3, Unit::Utf16, as_it_is, "ab…"),
            ("ab🛒d", 4, Unit::Utf16, as_it_is, "ab…"),
            ("ab🛒", 4, Unit::Utf16, as_it_is, "ab🛒"),
            ("abcd", 3, Unit::Bytes, as_it_is, "…"),
            ("abcd", 2, Unit::Bytes, as_it_is, ""),
            ("éé", 4, Unit::Bytes, as_it_is, "éé"),
            ("a&b", 6, Unit::Utf16, html, "a…"),
            ("a&b", 7, Unit::Utf16, html, "a&amp;b"),
            ("a*b*", 5, Unit::Utf16, markdown, "a\\*b…"),
        ] {
            assert_eq!(fit(text, max, unit, escape), expected, "{text} {max}");
        }
    }

    #[test]
    fn a_name_is_not_called_and_an_address_stays_as_it_is() {
        let called = |text| {
            escaped(text, |before, character, out| match character {
                '@' => at(before, out),
                other => out.push(other),
            })
        };
        assert_eq!(called("@here"), "@\u{200b}here");
        assert_eq!(called("(@ann) .@ann"), "(@\u{200b}ann) .@\u{200b}ann");
        assert_eq!(called("ann@example.com"), "ann@example.com");
    }

    proptest! {
        #[test]
        fn the_limit_always_holds(text in "(?s).{0,60}", max in 0_usize..80) {
            for unit in UNITS {
                for escape in ESCAPES {
                    let fitted = fit(&text, max, unit, escape);
                    prop_assert!(unit.size(&fitted) <= max, "{fitted:?}");
                    let whole = escaped(&text, escape);
                    if unit.size(&whole) <= max {
                        prop_assert_eq!(fitted, whole);
                    } else {
                        prop_assert!(whole.starts_with(fitted.trim_end_matches('…')), "{:?}", fitted);
                    }
                }
            }
        }

        #[test]
        fn html_has_no_tag_and_no_stray_ampersand(text in "(?s).{0,60}|[<>&\"';a]{0,30}") {
            let escaped = escaped(&text, html);
            prop_assert!(!escaped.contains(['<', '>', '"']));
            let back = escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
            prop_assert_eq!(back, text);
        }

        #[test]
        fn all_punctuation_of_markdown_is_escaped(text in "(?s).{0,60}|[\\\\*_`<a]{0,30}") {
            let escaped = escaped(&text, markdown);
            let mut rest = escaped.chars();
            let mut back = String::new();
            while let Some(character) = rest.next() {
                let meant = if character == '\\' { rest.next().unwrap() } else { character };
                prop_assert!(character == '\\' || !character.is_ascii_punctuation());
                back.push(meant);
            }
            prop_assert_eq!(back, text);
        }
    }
}
