//! Redaction: where a secret's value stands in what leaves a plugin, its name stands instead.
//!
//! It finds a value as it is and in the forms in which tools write it: base64 (wherever in a longer text, as Basic
//! authentication has it), percent-encoded, hexadecimal, escaped for JSON or HTML. It is against accidents and
//! echoes: a plugin that was shown a value can write it in a form of its own.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use crate::secret_value::{BASE64, STANDARD_WEBHOOKS_PREFIX, SecretValue};

/// A shorter value would be found in what has nothing to do with it.
pub(super) const REDACTED_BYTES_MIN: usize = 6;
/// Of one line of a value with several, such as a private key.
const LINE_BYTES_MIN: usize = 12;

/// As `encodeURIComponent` has it, and one that leaves less.
const COMPONENT: &AsciiSet = &UNRESERVED.remove(b'!').remove(b'*').remove(b'\'').remove(b'(').remove(b')');
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Knows some values, and what stands instead of them.
#[derive(Default)]
pub(super) struct Redactor {
    needles: Vec<Needle>,
    /// Of the needles, in bytes.
    longest: usize,
    beginnings: Beginnings,
}

/// Where a needle may begin, so that all of them are looked for in one pass: by its first bytes, hashed.
struct Beginnings([u64; 64]);

impl Default for Beginnings {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// What is shorter would not be found by its beginning.
const _: () = assert!(REDACTED_BYTES_MIN >= Beginnings::BYTES);

impl Beginnings {
    const BYTES: usize = 3;

    fn add(&mut self, needle: &[u8]) {
        if let Some(beginning) = needle.first_chunk() {
            let (word, bit) = Self::place(*beginning);
            self.0[word] |= bit;
        }
    }

    fn find(&self, bytes: &[u8]) -> impl Iterator<Item = usize> {
        let may_begin = |beginning: &[u8]| {
            let (word, bit) = Self::place([beginning[0], beginning[1], beginning[2]]);
            self.0[word] & bit != 0
        };
        let places = bytes.windows(Self::BYTES).enumerate();
        places.filter(move |(_, beginning)| may_begin(beginning)).map(|(start, _)| start)
    }

    /// The word, and the bit in it.
    fn place(beginning: [u8; Self::BYTES]) -> (usize, u64) {
        let hash = beginning.iter().fold(0u32, |hash, byte| hash.wrapping_mul(151).wrapping_add(u32::from(*byte)));
        ((hash >> 6) as usize % 64, 1 << (hash % 64))
    }
}

struct Needle {
    form: Zeroizing<Vec<u8>>,
    instead: String,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("needles", &self.needles.len()).finish_non_exhaustive()
    }
}

impl Redactor {
    /// Of these secrets: their names, and each of the values that they have or had.
    pub(super) fn new<'a>(secrets: impl Iterator<Item = (&'a str, &'a SecretValue)>) -> Self {
        let mut needles: Vec<Needle> = Vec::new();
        for (name, value) in secrets {
            for form in forms(value.bytes()) {
                if form.len() >= REDACTED_BYTES_MIN && needles.iter().all(|needle| needle.form != form) {
                    needles.push(Needle { form, instead: instead_of(name) });
                }
            }
        }
        let longest = needles.iter().map(|needle| needle.form.len()).max().unwrap_or_default();
        let mut beginnings = Beginnings::default();
        for needle in &needles {
            beginnings.add(&needle.form);
        }
        Self { needles, longest, beginnings }
    }

    /// The bytes with each value replaced.
    pub(super) fn redact<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let found = self.find(bytes);
        if found.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut redacted = Vec::with_capacity(bytes.len());
        let mut end = 0;
        for (range, instead) in found {
            redacted.extend(&bytes[end..range.start]);
            redacted.extend(instead.as_bytes());
            end = range.end;
        }
        redacted.extend(&bytes[end..]);
        Cow::Owned(redacted)
    }

    /// Where in these bytes, which others will follow, they can be cut so that no value is torn.
    pub(super) fn cut(&self, bytes: &[u8]) -> usize {
        let found = self.find(bytes);
        let from = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        let begins = |start: &usize| {
            let rest = &bytes[*start..];
            self.needles.iter().any(|needle| needle.form.len() > rest.len() && needle.form.starts_with(rest))
        };
        let cut = (from..bytes.len()).find(begins).unwrap_or(bytes.len());
        found.iter().find(|(range, _)| range.start < cut && cut < range.end).map_or(cut, |(range, _)| range.end)
    }

    /// In their order, and apart from each other: values that overlap are one.
    fn find(&self, bytes: &[u8]) -> Vec<(Range<usize>, &str)> {
        let mut found: Vec<(Range<usize>, &str)> = Vec::new();
        for start in self.beginnings.find(bytes) {
            for Needle { form, instead } in &self.needles {
                if bytes[start..].starts_with(form) {
                    found.push((start..start + form.len(), instead));
                }
            }
        }
        found.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
        let mut apart: Vec<(Range<usize>, &str)> = Vec::with_capacity(found.len());
        for (range, instead) in found {
            match apart.last_mut() {
                Some((last, _)) if range.start < last.end => last.end = last.end.max(range.end),
                _ => apart.push((range, instead)),
            }
        }
        apart
    }
}

/// What stands instead of a secret's value.
pub(super) fn instead_of(name: &str) -> String {
    format!("[secret {name}]")
}

/// How a value may be written.
fn forms(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = written(value);
    forms.extend(written(value.trim_ascii()));
    if let Some(key) = value.strip_prefix(STANDARD_WEBHOOKS_PREFIX) {
        forms.push(Zeroizing::new(key.to_vec()));
    }
    // What a server makes of a value for Basic authentication, and may well repeat.
    if let Ok(decoded) = BASE64.decode(value).map(Zeroizing::new)
        && decoded.iter().all(|byte| matches!(byte, b' '..=b'~'))
    {
        forms
            .extend(decoded.iter().position(|byte| *byte == b':').map(|at| Zeroizing::new(decoded[at + 1..].to_vec())));
        forms.push(decoded);
    }
    // The log is written line by line.
    if value.contains(&b'\n') {
        let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let lines = lines.filter(|line| line.len() >= LINE_BYTES_MIN && !line.starts_with(b"-----"));
        forms.extend(lines.map(|line| Zeroizing::new(line.to_vec())));
    }
    forms
}

fn written(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = vec![value.to_vec()];
    for set in [NON_ALPHANUMERIC, UNRESERVED, COMPONENT] {
        let encoded = percent_encode(value, set).to_string();
        forms.push(with_small_digits(&encoded));
        forms.push(encoded.into_bytes());
    }
    let encoded = url::form_urlencoded::byte_serialize(value).collect::<String>();
    forms.push(with_small_digits(&encoded));
    forms.push(encoded.into_bytes());
    for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        forms.push(alphabet.encode(value).into_bytes());
        // Behind something else: one or two bytes beside a whole number of groups.
        for before in [1, 2] {
            let encoded = alphabet.encode([&[0; 2][..before], value].concat());
            // Only the digits that the value alone decides.
            let digits = (before * 8).div_ceil(6)..(before + value.len()) * 8 / 6;
            forms.extend(encoded.get(digits).map(|digits| digits.as_bytes().to_vec()));
        }
        let alone = alphabet.encode(value);
        forms.extend(alone.get(..value.len() * 8 / 6).map(|digits| digits.as_bytes().to_vec()));
    }
    for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
        let digit = |half: u8| digits[usize::from(half)];
        forms.push(value.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect());
    }
    if let Ok(text) = std::str::from_utf8(value) {
        for quoted in [format!("{text:?}"), serde_json::Value::from(text).to_string()] {
            forms.extend(quoted.get(1..quoted.len() - 1).map(|inner| inner.as_bytes().to_vec()));
        }
        forms.push(text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").into_bytes());
    }
    forms.into_iter().map(Zeroizing::new).collect()
}

/// `%3D` as `%3d`.
fn with_small_digits(encoded: &str) -> Vec<u8> {
    let mut small = encoded.as_bytes().to_vec();
    for at in memchr::memchr_iter(b'%', encoded.as_bytes()) {
        if let Some(digits) = small.get_mut(at + 1..at + 3) {
            digits.make_ascii_lowercase();
        }
    }
    small
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[(&str, &str)]) -> Redactor {
        let values: Vec<_> =
            secrets.iter().map(|(name, value)| (*name, SecretValue::new(value.as_bytes().to_vec()).unwrap())).collect();
        Redactor::new(values.iter().map(|(name, value)| (*name, value)))
    }

    fn check(value: &str, text: &str, expected: &str) {
        let redacted = String::from_utf8(redactor(&[("token", value)]).redact(text.as_bytes()).into_owned()).unwrap();
        assert_eq!(redacted, expected, "{value} in {text}");
    }

    #[test]
    fn a_value_is_replaced_in_each_form() {
        let value = "s3cr&t/\"k=y\" ÿ";
        check(value, &format!("a {value}, {value}{value}."), "a [secret token], [secret token][secret token].");
        check(value, "nothing", "nothing");
        check(value, "?t=s3cr%26t%2F%22k%3Dy%22%20%C3%BF&u", "?t=[secret token]&u");
        check(value, "?t=s3cr%26t%2f%22k%3dy%22%20%c3%bf&u", "?t=[secret token]&u");
        check(value, "?t=s3cr%26t%2F%22k%3Dy%22+%C3%BF&u", "?t=[secret token]&u");
        check(value, &format!("{:?}", [value]), "[\"[secret token]\"]");
        check(value, "<p>s3cr&amp;t/\"k=y\" ÿ</p>", "<p>[secret token]</p>");
        check("hunter2", "68756e74657232 68756E74657232", "[secret token] [secret token]");
        check("whsec_MfKQ9r8GKYqrTwjU", "key MfKQ9r8GKYqrTwjU", "key [secret token]");
        // A value for Basic authentication, as its receiver understands it.
        check("YW5uOmh1bnRlcjI=", "no ann:hunter2, no hunter2", "no [secret token], no [secret token]");
        check(
            "-----BEGIN KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END KEY-----",
            "x MC4CAQAwBQYDK2VwBCIEIA",
            "x [secret token]",
        );
    }

    #[test]
    fn a_value_is_found_in_the_base64_of_a_longer_text() {
        for value in ["hunter", "hunter2", "hunter22"] {
            for before in ["", "a", "ab", "abc", "ann:"] {
                for after in ["", "y", "yz"] {
                    for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                        let text = alphabet.encode(format!("{before}{value}{after}"));
                        let redacted = redactor(&[("t", value)]).redact(text.as_bytes()).into_owned();
                        let left = String::from_utf8(redacted).unwrap();
                        assert!(left.contains("[secret t]"), "{value} in {before}{value}{after}: {left}");
                        // Beside it stands what its neighbours share with it, a few bits.
                        let left = left.replace("[secret t]", "");
                        assert!(left.len() <= (before.len() + after.len()) * 4 / 3 + 3, "{left}");
                    }
                }
            }
        }
    }

    #[test]
    fn values_that_overlap_leave_nothing_of_either() {
        let redactor = redactor(&[("a", "abcdefgh"), ("b", "fghijklm"), ("c", "abcdef")]);
        assert_eq!(*redactor.redact(b"<abcdefghijklm>"), *b"<[secret a]>");
    }

    #[test]
    fn a_short_value_is_left_alone_and_none_costs_nothing() {
        check("12345", "12345", "12345");
        check("123456", "123456", "[secret token]");
        assert!(matches!(Redactor::default().redact(b"x"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_cut_tears_no_value() {
        let redactor = redactor(&[("a", "abcdefgh")]);
        for (text, expected) in
            [("xxabc", 2), ("xxabx", 5), ("abcdefgh", 8), ("xxabcdefg", 2), ("", 0), ("abcdefghab", 8)]
        {
            assert_eq!(redactor.cut(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let shown = format!("{:?}", redactor(&[("a", "abcdefgh")]));
        assert!(
            shown.starts_with("Redactor { needles: ") && !shown.contains("abcdefgh") && !shown.contains("97"),
            "{shown}"
        );
    }
}
