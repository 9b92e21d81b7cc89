//! A needle is one form of a secret's value to search for: the value itself, or a form that decoding single
//! characters does not lead back from, such as its base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use crate::secret_value::{BASE64, STANDARD_WEBHOOKS_PREFIX, SecretValue};

/// Minimum bytes of a redacted value. A shorter one would match unrelated text.
pub const REDACTED_BYTES_MIN: usize = 6;
/// Minimum bytes of one line of a multi-line value, such as a private key.
const LINE_BYTES_MIN: usize = 12;
/// Maximum number of lines searched on their own. A key of 16,384 bits has fewer.
const LINES_MAX: usize = 256;

pub(super) struct Needle {
    form: Zeroizing<Vec<u8>>,
    is_base64: bool,
    /// The text that replaces it.
    pub(super) instead: String,
}

impl Needle {
    pub(super) fn form(&self) -> &[u8] {
        &self.form
    }

    /// Returns whether `byte` may stand where the form has `wanted`: letters match in either case, base64 in either
    /// alphabet.
    pub(super) fn takes(&self, wanted: u8, byte: u8) -> bool {
        let is_alias = || matches!((wanted, byte), (b'+', b'-') | (b'-', b'+') | (b'/', b'_') | (b'_', b'/'));
        wanted.eq_ignore_ascii_case(&byte) || self.is_base64 && is_alias()
    }
}

/// Collects the forms of some values, each once.
#[derive(Default)]
pub(super) struct Needles(pub(super) Vec<Needle>);

impl Needles {
    /// Adds all forms of a value.
    pub(super) fn add(&mut self, value: &SecretValue, instead: &str) {
        let bytes = value.bytes();
        for plain in [bytes, bytes.trim_ascii()] {
            self.push(plain.to_vec(), false, instead);
        }
        // The value as sent in URLs and in JSON. Escapes are decoded where they stand, but not inside a wrapping
        // added later.
        let json = value.text().map(|text| serde_json::Value::from(text).to_string());
        let json = json.as_ref().and_then(|json| json.get(1..json.len() - 1)).unwrap_or_default();
        let (in_path, in_query) = (Zeroizing::new(value.in_path()), Zeroizing::new(value.in_query()));
        for form in [bytes, in_path.as_bytes(), in_query.as_bytes(), json.as_bytes()] {
            self.wrapped(form, instead);
        }
        if let Some(text) = value.text().filter(|text| !text.is_ascii()) {
            self.other_charsets(text, instead);
        }
        if let Some(key) = bytes.strip_prefix(STANDARD_WEBHOOKS_PREFIX) {
            self.push(key.to_vec(), false, instead);
        }
        // A server decodes a value for Basic authentication, and may well repeat the result.
        if let Ok(decoded) = BASE64.decode(bytes).map(Zeroizing::new)
            && decoded.iter().all(|byte| matches!(byte, b' '..=b'~'))
        {
            let password = decoded.iter().position(|byte| *byte == b':').map(|at| decoded[at + 1..].to_vec());
            if let Some(password) = password {
                self.push(password, false, instead);
            }
            self.push(decoded.to_vec(), false, instead);
        }
        // The log is written line by line.
        if bytes.contains(&b'\n') {
            let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            let lines = lines.filter(|line| line.len() >= LINE_BYTES_MIN && !line.starts_with(b"-----"));
            for line in lines.take(LINES_MAX) {
                self.push(line.to_vec(), false, instead);
            }
        }
    }

    /// Adds the base64 of a form, alone and within a longer text, and its hexadecimal.
    fn wrapped(&mut self, form: &[u8], instead: &str) {
        for before in [0, 1, 2] {
            let encoded = Zeroizing::new(STANDARD_NO_PAD.encode([&[0; 2][..before], form].concat()));
            // The digits that depend on the form alone, and one more at the end of a text.
            let digits = (before * 8).div_ceil(6)..(before + form.len()) * 8 / 6;
            for digits in [encoded.get(digits.clone()), encoded.get(digits.start..)].into_iter().flatten() {
                self.push(digits.as_bytes().to_vec(), true, instead);
            }
        }
        let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
        self.push(form.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect(), false, instead);
    }

    /// Adds the value in Latin-1 and UTF-16, where characters beyond ASCII have other bytes.
    fn other_charsets(&mut self, text: &str, instead: &str) {
        if let Ok(latin) = text.chars().map(|char| u8::try_from(u32::from(char))).collect::<Result<Vec<_>, _>>() {
            self.push(latin, false, instead);
        }
        self.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect(), false, instead);
        self.push(text.encode_utf16().flat_map(u16::to_be_bytes).collect(), false, instead);
    }

    fn push(&mut self, form: Vec<u8>, is_base64: bool, instead: &str) {
        let form = Zeroizing::new(form);
        let is_known = || self.0.iter().any(|needle| needle.form == form && needle.is_base64 == is_base64);
        if form.len() >= REDACTED_BYTES_MIN && !is_known() {
            self.0.push(Needle { form, is_base64, instead: instead.to_owned() });
        }
    }
}
