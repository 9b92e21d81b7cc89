//! Text in an encoding that AMQP does not allow.

use sha2::{Digest as _, Sha256};

/// Maximum bytes of an AMQP short string.
pub(super) const SHORT_STRING_BYTES_MAX: usize = 255;
const DIGEST_CHARACTERS: usize = 16;

/// Converts a short string to text. AMQP demands UTF-8. Any other bytes are read as Latin-1 (ISO
/// 8859-1), which is what publishers with an older encoding mean.
///
/// A Latin-1 character can take two bytes in UTF-8. Text that no longer fits a short string is cut
/// and ends in a digest of the whole, so that two different ids stay different.
pub(super) fn mend(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let text: String = bytes.iter().copied().map(char::from).collect();
    if text.len() <= SHORT_STRING_BYTES_MAX {
        return text;
    }
    let mut digest = format!("{:x}", Sha256::digest(bytes));
    digest.truncate(DIGEST_CHARACTERS);
    let kept = text.floor_char_boundary(SHORT_STRING_BYTES_MAX - "~".len() - digest.len());
    format!("{}~{digest}", &text[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_utf_8_is_read_as_latin_1() {
        for (bytes, text) in [
            (&b"order-4711"[..], "order-4711"),
            ("Köln €".as_bytes(), "Köln €"),
            (b"K\xf6ln", "Köln"),
            // A single invalid byte makes all of it Latin-1.
            (b"\xc3\xb6 \xff", "Ã¶ ÿ"),
            (b"", ""),
        ] {
            assert_eq!(mend(bytes), text);
        }
    }

    #[test]
    fn text_that_grows_too_long_keeps_its_identity() {
        let (one, other) = ([0xf6; 255], [[0xf6; 254].as_slice(), &[0xe4]].concat());
        let mended = mend(&one);
        assert!(mended.len() <= SHORT_STRING_BYTES_MAX, "{}", mended.len());
        assert!(mended.starts_with("öööö"));
        assert_ne!(mended, mend(&other));
        assert_eq!(mended, mend(&one));
        assert_eq!(mend(&[0xf6; 127]).chars().count(), 127);
    }
}
