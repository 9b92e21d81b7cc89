//! A spelling is one way to write one character: as it is, or by an escape of URLs, JSON and programming languages, HTML
//! or quoted-printable mail, each of which may itself be escaped.
//!
//! A place in a text can often be read in several ways: `%41` is three characters, or an `A`. All of them count, because
//! nobody knows what was escaped before a text came here, and a plugin may choose what stands beside a secret.

use std::ops::RangeInclusive;

use crate::redact::entity;

/// A longer spelling is none. All that is done about cuts and streams rests on this bound.
pub(super) const SPELLING_BYTES_MAX: usize = 64;
/// Escapes of escapes: `%252F` has two of them.
const LAYERS_MAX: u8 = 3;
/// Ways to read one place. There is no text with more that anything but malice writes.
const SPELLINGS_MAX: usize = 16;

/// What a spelling stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    Byte(u8),
    /// One beyond ASCII.
    Char(char),
}

impl Meant {
    pub(super) fn of(char: char) -> Self {
        u8::try_from(u32::from(char)).ok().filter(u8::is_ascii).map_or(Self::Char(char), Self::Byte)
    }

    /// Its bytes in UTF-8.
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
    /// In bytes of the text.
    pub(super) bytes: usize,
    pub(super) meant: Meant,
    /// How often what it means may be taken for the beginning of another escape.
    layers: u8,
}

/// The ways to read one place.
pub(super) struct Spellings {
    all: [Spelling; SPELLINGS_MAX],
    count: usize,
}

impl Spellings {
    fn new(byte: u8, layers: u8) -> Self {
        let raw = Spelling { bytes: 1, meant: Meant::Byte(byte), layers };
        Self { all: [raw; SPELLINGS_MAX], count: 1 }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Spelling> {
        self.all[..self.count].iter().copied()
    }

    pub(super) fn push(&mut self, bytes: usize, meant: Meant, layers: u8) {
        let is_known = self.iter().any(|known| known.bytes == bytes && known.meant == meant);
        if !is_known && bytes <= SPELLING_BYTES_MAX && self.count < SPELLINGS_MAX {
            self.all[self.count] = Spelling { bytes, meant, layers };
            self.count += 1;
        }
    }
}

/// Whether this place can be read in one way only, and what follows is no [`gap`].
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

/// The ways to read what begins here, which is within the text.
pub(super) fn spellings(text: &[u8], at: usize) -> Spellings {
    let text = &text[at..];
    // In UTF-16 and UTF-32 one or three bytes of zero stand between the characters.
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
        // The last one of a text in big-endian order has nothing behind it.
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

/// How long the gap is that begins here: a line break, which mails, headers and base64 have within a word, as it is or as JSON
/// escapes it. 0: there is none.
pub(super) fn gap(text: &[u8], at: usize) -> usize {
    const BREAKS: [&[u8]; 6] = [b"\r\n", b"\n", br"\r\n", br"\n", b"=\r\n", b"=\n"];
    let text = &text[at..];
    let Some(broken) = BREAKS.iter().find(|broken| text.starts_with(broken)) else { return 0 };
    // A header that is folded goes on behind a space.
    broken.len() + usize::from(matches!(text.get(broken.len()), Some(b' ' | b'\t')))
}

/// The ways to read the beginning of a text that is not empty.
fn read(text: &[u8], layers: u8) -> Spellings {
    let mut spellings = Spellings::new(text[0], layers);
    let mut at = 0;
    while at < spellings.count {
        let Spelling { bytes, meant, layers } = spellings.all[at];
        if let (Meant::Byte(byte), Some(layers)) = (meant, layers.checked_sub(1)) {
            let rest = &text[bytes..];
            match byte {
                b'%' => {
                    two_digits(rest, bytes, layers, &mut spellings);
                    four_digits(rest, bytes, layers, &mut spellings);
                }
                b'\\' => backslash(rest, bytes, layers, &mut spellings),
                b'&' => entity::read(rest, bytes, layers, &mut spellings),
                b'=' => two_digits(rest, bytes, layers, &mut spellings),
                // As forms write a space.
                b'+' => spellings.push(bytes, Meant::Byte(b' '), 0),
                _ => {}
            }
        }
        at += 1;
    }
    spellings
}

/// The first reading of what begins here as a byte that is wanted: how long it is, and the byte.
pub(super) fn one(text: &[u8], layers: u8, is_wanted: impl Fn(u8) -> bool) -> Option<(usize, u8)> {
    let first = *text.first()?;
    if is_wanted(first) {
        return Some((1, first));
    }
    if !b"%\\&=".contains(&first) || layers == 0 {
        return None;
    }
    read(text, layers).iter().find_map(|spelling| match spelling.meant {
        Meant::Byte(byte) if is_wanted(byte) => Some((spelling.bytes, byte)),
        _ => None,
    })
}

/// The number that begins here, of so many digits: how long it is, and the number.
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

/// How often what stands behind a sign may be escaped itself: nobody leaves a `%` as it is, and escapes the digits behind it.
pub(super) fn layers_behind(sign: usize, layers: u8) -> u8 {
    if sign == 1 { 0 } else { layers }
}

/// Behind `%`, and behind the `=` of quoted-printable mail.
fn two_digits(rest: &[u8], before: usize, layers: u8, spellings: &mut Spellings) {
    if let Some((bytes, code)) = number(rest, 2..=2, 16, layers_behind(before, layers)) {
        spellings.push(before + bytes, Meant::Byte(code.to_le_bytes()[0]), layers);
    }
}

/// Behind the `%` of `%u20ac`, which is nobody's standard.
fn four_digits(rest: &[u8], before: usize, layers: u8, spellings: &mut Spellings) {
    if let [b'u' | b'U', digits @ ..] = rest
        && let Some((bytes, code)) = number(digits, 4..=4, 16, layers_behind(before, layers))
        && let Some(char) = char::from_u32(code)
    {
        spellings.push(before + 1 + bytes, Meant::of(char), layers);
    }
}

fn backslash(rest: &[u8], before: usize, layers: u8, spellings: &mut Spellings) {
    let Some(first) = rest.first() else { return };
    escaped(*first, &rest[1..], before + 1, layers, spellings);
    // As `\&quot;`. Of two backslashes the one makes the other what it is, which is seen to elsewhere.
    if layers > 0 && b"%\\&=".contains(first) && !rest.starts_with(br"\\") {
        for Spelling { bytes, meant, .. } in read(rest, layers).iter().filter(|spelling| spelling.bytes > 1) {
            if let Meant::Byte(byte) = meant {
                escaped(byte, &rest[bytes..], before + bytes, layers, spellings);
            }
        }
    }
}

/// What a character means behind a backslash. `before` is how long both are.
fn escaped(char: u8, rest: &[u8], before: usize, layers: u8, spellings: &mut Spellings) {
    let behind = layers_behind(before - 1, layers);
    let mut push = |bytes: usize, meant| spellings.push(before + bytes, meant, layers);
    match char {
        b'u' | b'U' => {
            if let Some((bytes, char)) = unicode(rest, behind) {
                push(bytes, Meant::of(char));
            }
        }
        b'x' => {
            if let Some((bytes, code)) = number(rest, 2..=2, 16, behind) {
                // A byte in some languages, a character in others.
                push(bytes, Meant::Byte(code.to_le_bytes()[0]));
                if let Some(char) = char::from_u32(code) {
                    push(bytes, Meant::of(char));
                }
            }
        }
        b'0'..=b'7' => {
            let first = u32::from(char - b'0');
            push(0, Meant::Byte(char - b'0'));
            for digits in 1..=2 {
                if let Some((bytes, code)) = number(rest, digits..=digits, 8, behind)
                    && let Ok(byte) = u8::try_from((first << (3 * digits)) + code)
                {
                    push(bytes, Meant::Byte(byte));
                }
            }
        }
        b'n' => push(0, Meant::Byte(b'\n')),
        b'r' => push(0, Meant::Byte(b'\r')),
        b't' => push(0, Meant::Byte(b'\t')),
        b'b' => push(0, Meant::Byte(8)),
        b'v' => push(0, Meant::Byte(11)),
        b'f' => push(0, Meant::Byte(12)),
        byte if byte.is_ascii_punctuation() || byte == b' ' => push(0, Meant::Byte(byte)),
        _ => {}
    }
}

/// What stands behind `\u`: four digits, twice that for what is beyond them, or any number in braces.
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
    let mut escapes = escapes.iter().filter(|escape| escape.meant == Meant::Byte(b'\\'));
    escapes.find_map(|escape| {
        let sign_at = bytes + escape.bytes;
        let (sign, _) = one(&rest[sign_at..], layers, |byte| matches!(byte, b'u' | b'U'))?;
        let (more, low) = number(&rest[sign_at + sign..], 4..=4, 16, layers)?;
        let [Ok(high), Ok(low)] = [code, low].map(u16::try_from) else { return None };
        let char = char::decode_utf16([high, low]).next()?.ok()?;
        Some((sign_at + sign + more, char))
    })
}
