//! A spelling is one way to write a character: plain, or as an escape of URLs, JSON and programming languages, HTML
//! or quoted-printable mail. Each of these may be escaped again.
//!
//! A position in a text can often be read in several ways: `%41` is three characters, or an `A`. All readings count,
//! because nobody knows how a text was escaped before, and a plugin may choose the text beside a secret.

mod entity;

use std::ops::RangeInclusive;

/// Maximum bytes of a spelling. All handling of cuts and streams relies on this bound.
pub(super) const SPELLING_BYTES_MAX: usize = 64;
/// Maximum nesting of escapes: `%252F` has two layers.
const LAYERS_MAX: u8 = 3;
/// Maximum number of readings of one position. Only a malicious text has more.
const SPELLINGS_MAX: usize = 16;

/// The character or byte that a spelling stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Byte(u8),
    /// A character beyond ASCII.
    Char(char),
}

impl Decoded {
    pub(super) fn of(char: char) -> Self {
        u8::try_from(u32::from(char)).ok().filter(u8::is_ascii).map_or(Self::Char(char), Self::Byte)
    }

    /// Returns its bytes in UTF-8.
    pub(super) fn bytes(self, buffer: &mut [u8; 4]) -> &[u8] {
        match self {
            Self::Byte(byte) => {
                buffer[0] = byte;
                &buffer[..1]
            }
            Self::Char(char) => char.encode_utf8(buffer).as_bytes(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spelling {
    /// Length in bytes of the text.
    pub(super) bytes: usize,
    pub(super) meant: Decoded,
    /// How many more layers of escapes this reading may begin.
    layers: u8,
}

/// The readings of one position.
pub(super) struct Spellings {
    all: [Spelling; SPELLINGS_MAX],
    count: usize,
}

impl Spellings {
    fn new(byte: u8, layers: u8) -> Self {
        let raw = Spelling { bytes: 1, meant: Decoded::Byte(byte), layers };
        Self { all: [raw; SPELLINGS_MAX], count: 1 }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Spelling> {
        self.all[..self.count].iter().copied()
    }

    pub(super) fn push(&mut self, bytes: usize, meant: Decoded, layers: u8) {
        let is_known = self.iter().any(|known| known.bytes == bytes && known.meant == meant);
        if !is_known && bytes <= SPELLING_BYTES_MAX && self.count < SPELLINGS_MAX {
            self.all[self.count] = Spelling { bytes, meant, layers };
            self.count += 1;
        }
    }
}

/// Returns whether this position has only one reading and is not followed by a [`gap`].
pub(super) fn is_plain(text: &[u8], at: usize) -> bool {
    const SPECIAL: [bool; 256] = {
        let mut special = [false; 256];
        let characters = b"%\\&=+";
        let mut at = 0;
        while at < characters.len() {
            special[characters[at] as usize] = true;
            at += 1;
        }
        special
    };
    let is_gap = |next: &u8| matches!(next, 0 | b'\r' | b'\n' | b'\\' | b'=');
    !SPECIAL[usize::from(text[at])] && !text.get(at + 1).is_some_and(is_gap)
}

/// Returns the readings of the text at `at`, which must be within it.
pub(super) fn spellings(text: &[u8], at: usize) -> Spellings {
    let text = &text[at..];
    // In UTF-16 and UTF-32, one or three zero bytes stand between characters.
    let stride = match text {
        [_, 0, 0, 0, ..] => 4,
        [_, 0, ..] => 2,
        _ => 1,
    };
    if stride == 1 {
        return read(&text[..text.len().min(SPELLING_BYTES_MAX)], LAYERS_MAX);
    }
    let mut narrow = [0; SPELLING_BYTES_MAX / 2];
    let mut count = 0;
    for (place, unit) in narrow.iter_mut().zip(text.chunks(stride)) {
        // The last character of a big-endian text has nothing behind it.
        if unit[1..].iter().any(|byte| *byte != 0) {
            break;
        }
        *place = unit[0];
        count += 1;
    }
    let mut spellings = Spellings::new(text[0], 0);
    for Spelling { bytes, meant, .. } in read(&narrow[..count], LAYERS_MAX).iter() {
        spellings.push((bytes * stride).min(text.len()), meant, 0);
    }
    spellings
}

/// Returns the length of the gap that begins here, or 0. A gap is a line break within a word, as in mails, headers
/// and base64, either raw or as JSON escapes it.
pub(super) fn gap(text: &[u8], at: usize) -> usize {
    const BREAKS: [&[u8]; 6] = [b"\r\n", b"\n", br"\r\n", br"\n", b"=\r\n", b"=\n"];
    let text = &text[at..];
    let Some(broken) = BREAKS.iter().find(|broken| text.starts_with(broken)) else { return 0 };
    // A folded header continues after a space.
    broken.len() + usize::from(matches!(text.get(broken.len()), Some(b' ' | b'\t')))
}

/// Returns the readings of the beginning of a non-empty text.
fn read(text: &[u8], layers: u8) -> Spellings {
    let mut spellings = Spellings::new(text[0], layers);
    let mut at = 0;
    while at < spellings.count {
        let Spelling { bytes, meant, layers } = spellings.all[at];
        if let (Decoded::Byte(byte), Some(layers)) = (meant, layers.checked_sub(1)) {
            let rest = &text[bytes..];
            match byte {
                b'%' => {
                    two_digits(rest, bytes, layers, &mut spellings);
                    four_digits(rest, bytes, layers, &mut spellings);
                }
                b'\\' => backslash(rest, bytes, layers, &mut spellings),
                b'&' => entity::read(rest, bytes, layers, &mut spellings),
                b'=' => two_digits(rest, bytes, layers, &mut spellings),
                // Forms write a space as `+`.
                b'+' => spellings.push(bytes, Decoded::Byte(b' '), 0),
                _ => {}
            }
        }
        at += 1;
    }
    spellings
}

/// Returns the first reading of the text's beginning as a wanted byte: its length, and the byte.
pub(super) fn one(text: &[u8], layers: u8, is_wanted: impl Fn(u8) -> bool) -> Option<(usize, u8)> {
    let first = *text.first()?;
    if is_wanted(first) {
        return Some((1, first));
    }
    if !b"%\\&=".contains(&first) || layers == 0 {
        return None;
    }
    read(text, layers).iter().find_map(|spelling| match spelling.meant {
        Decoded::Byte(byte) if is_wanted(byte) => Some((spelling.bytes, byte)),
        _ => None,
    })
}

/// Reads a number with a number of digits in this range. Returns its length and its value.
pub(super) fn number(text: &[u8], digits: RangeInclusive<usize>, radix: u32, layers: u8) -> Option<(usize, u32)> {
    let (mut bytes, mut number, mut count) = (0, 0, 0);
    while count < *digits.end()
        && let Some((more, digit)) = one(&text[bytes..], layers, |byte| char::from(byte).is_digit(radix))
    {
        number = number * radix + char::from(digit).to_digit(radix)?;
        bytes += more;
        count += 1;
    }
    digits.contains(&count).then_some((bytes, number))
}

/// Returns how often the text behind a sign may be escaped itself. Nobody escapes the digits behind a plain `%`.
pub(super) fn layers_behind(sign: usize, layers: u8) -> u8 {
    if sign == 1 { 0 } else { layers }
}

/// Reads the digits behind `%`, and behind the `=` of quoted-printable mail.
fn two_digits(rest: &[u8], before: usize, layers: u8, spellings: &mut Spellings) {
    if let Some((bytes, code)) = number(rest, 2..=2, 16, layers_behind(before, layers)) {
        spellings.push(before + bytes, Decoded::Byte(code.to_le_bytes()[0]), layers);
    }
}

/// Reads the digits behind the `%` of `%u20ac`, which is in no standard.
fn four_digits(rest: &[u8], before: usize, layers: u8, spellings: &mut Spellings) {
    if let [b'u' | b'U', digits @ ..] = rest
        && let Some((bytes, code)) = number(digits, 4..=4, 16, layers_behind(before, layers))
        && let Some(char) = char::from_u32(code)
    {
        spellings.push(before + 1 + bytes, Decoded::of(char), layers);
    }
}

fn backslash(rest: &[u8], before: usize, layers: u8, spellings: &mut Spellings) {
    let Some(first) = rest.first() else { return };
    escaped(*first, &rest[1..], before + 1, layers, spellings);
    // As in `\&quot;`. Of two backslashes the first escapes the second, which is handled elsewhere.
    if layers > 0 && b"%\\&=".contains(first) && !rest.starts_with(br"\\") {
        for Spelling { bytes, meant, .. } in read(rest, layers).iter().filter(|spelling| spelling.bytes > 1) {
            if let Decoded::Byte(byte) = meant {
                escaped(byte, &rest[bytes..], before + bytes, layers, spellings);
            }
        }
    }
}

/// Reads an escaped character behind a backslash. `before` is the length of both.
fn escaped(char: u8, rest: &[u8], before: usize, layers: u8, spellings: &mut Spellings) {
    let behind = layers_behind(before - 1, layers);
    let mut push = |bytes: usize, meant| spellings.push(before + bytes, meant, layers);
    match char {
        b'u' | b'U' => {
            if let Some((bytes, char)) = unicode(rest, behind) {
                push(bytes, Decoded::of(char));
            }
        }
        b'x' => {
            if let Some((bytes, code)) = number(rest, 2..=2, 16, behind) {
                // This is a byte in some languages and a character in others.
                push(bytes, Decoded::Byte(code.to_le_bytes()[0]));
                if let Some(char) = char::from_u32(code) {
                    push(bytes, Decoded::of(char));
                }
            }
        }
        b'0'..=b'7' => {
            let first = u32::from(char - b'0');
            push(0, Decoded::Byte(char - b'0'));
            for digits in 1..=2 {
                if let Some((bytes, code)) = number(rest, digits..=digits, 8, behind)
                    && let Ok(byte) = u8::try_from((first << (3 * digits)) + code)
                {
                    push(bytes, Decoded::Byte(byte));
                }
            }
        }
        b'n' => push(0, Decoded::Byte(b'\n')),
        b'r' => push(0, Decoded::Byte(b'\r')),
        b't' => push(0, Decoded::Byte(b'\t')),
        b'b' => push(0, Decoded::Byte(8)),
        b'v' => push(0, Decoded::Byte(11)),
        b'f' => push(0, Decoded::Byte(12)),
        byte if byte.is_ascii_punctuation() || byte == b' ' => push(0, Decoded::Byte(byte)),
        _ => {}
    }
}

/// Reads the code behind `\u`: four digits, a surrogate pair of two such escapes, or any number in braces.
fn unicode(rest: &[u8], layers: u8) -> Option<(usize, char)> {
    if let Some((brace, _)) = one(rest, layers, |byte| byte == b'{') {
        let (bytes, code) = number(&rest[brace..], 1..=6, 16, layers)?;
        let (end, _) = one(&rest[brace + bytes..], layers, |byte| byte == b'}')?;
        return Some((brace + bytes + end, char::from_u32(code)?));
    }
    let (bytes, code) = number(rest, 4..=4, 16, layers)?;
    if let Some(char) = char::from_u32(code) {
        return Some((bytes, char));
    }
    let escapes = rest.get(bytes..).filter(|rest| !rest.is_empty()).map(|rest| read(rest, layers))?;
    let mut escapes = escapes.iter().filter(|escape| escape.meant == Decoded::Byte(b'\\'));
    escapes.find_map(|escape| {
        let sign_at = bytes + escape.bytes;
        let (sign, _) = one(&rest[sign_at..], layers, |byte| matches!(byte, b'u' | b'U'))?;
        let (more, low) = number(&rest[sign_at + sign..], 4..=4, 16, layers)?;
        let [Ok(high), Ok(low)] = [code, low].map(u16::try_from) else { return None };
        let char = char::decode_utf16([high, low]).next()?.ok()?;
        Some((sign_at + sign + more, char))
    })
}
