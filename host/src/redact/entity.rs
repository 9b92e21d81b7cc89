//! HTML's character references, by number and, as far as ASCII and Latin-1 go, by name: `&#38;`, `&#x26;`, `&amp;`, `&auml;`.

use crate::redact::spelling::{Meant, Spellings, number, one};

/// Of the digits of a number; browsers take any number of zeros.
const DIGITS_MAX: usize = 7;
/// `DiacriticalGrave`
const NAME_BYTES_MAX: usize = 16;

/// The names that HTML has for ASCII.
const NAMES: [(&str, u8); 45] = [
    ("amp", b'&'),
    ("AMP", b'&'),
    ("lt", b'<'),
    ("LT", b'<'),
    ("gt", b'>'),
    ("GT", b'>'),
    ("quot", b'"'),
    ("QUOT", b'"'),
    ("apos", b'\''),
    ("Tab", b'\t'),
    ("NewLine", b'\n'),
    ("excl", b'!'),
    ("num", b'#'),
    ("dollar", b'$'),
    ("percnt", b'%'),
    ("lpar", b'('),
    ("rpar", b')'),
    ("ast", b'*'),
    ("midast", b'*'),
    ("plus", b'+'),
    ("comma", b','),
    ("period", b'.'),
    ("sol", b'/'),
    ("colon", b':'),
    ("semi", b';'),
    ("equals", b'='),
    ("quest", b'?'),
    ("commat", b'@'),
    ("lsqb", b'['),
    ("lbrack", b'['),
    ("bsol", b'\\'),
    ("rsqb", b']'),
    ("rbrack", b']'),
    ("Hat", b'^'),
    ("lowbar", b'_'),
    ("UnderBar", b'_'),
    ("grave", b'`'),
    ("DiacriticalGrave", b'`'),
    ("lcub", b'{'),
    ("lbrace", b'{'),
    ("verbar", b'|'),
    ("vert", b'|'),
    ("VerticalLine", b'|'),
    ("rcub", b'}'),
    ("rbrace", b'}'),
];
/// Those that need no semicolon, in either case.
const OLD: [&str; 4] = ["amp", "lt", "gt", "quot"];

/// The names of U+00A0 to U+00FF, in their order.
const LATIN_1: [&str; 96] = [
    "nbsp", "iexcl", "cent", "pound", "curren", "yen", "brvbar", "sect", "uml", "copy", "ordf", "laquo", "not", "shy",
    "reg", "macr", "deg", "plusmn", "sup2", "sup3", "acute", "micro", "para", "middot", "cedil", "sup1", "ordm",
    "raquo", "frac14", "frac12", "frac34", "iquest", "Agrave", "Aacute", "Acirc", "Atilde", "Auml", "Aring", "AElig",
    "Ccedil", "Egrave", "Eacute", "Ecirc", "Euml", "Igrave", "Iacute", "Icirc", "Iuml", "ETH", "Ntilde", "Ograve",
    "Oacute", "Ocirc", "Otilde", "Ouml", "times", "Oslash", "Ugrave", "Uacute", "Ucirc", "Uuml", "Yacute", "THORN",
    "szlig", "agrave", "aacute", "acirc", "atilde", "auml", "aring", "aelig", "ccedil", "egrave", "eacute", "ecirc",
    "euml", "igrave", "iacute", "icirc", "iuml", "eth", "ntilde", "ograve", "oacute", "ocirc", "otilde", "ouml",
    "divide", "oslash", "ugrave", "uacute", "ucirc", "uuml", "yacute", "thorn", "yuml",
];

/// What stands behind the `&`.
pub(super) fn read(rest: &[u8], before: usize, layers: u8, spellings: &mut Spellings) {
    let mut push = |end: usize, meant, needs_end: bool| {
        if let Some((semicolon, _)) = one(&rest[end..], layers, |byte| byte == b';') {
            spellings.push(before + end + semicolon, meant, layers);
        }
        if !needs_end {
            spellings.push(before + end, meant, layers);
        }
    };
    if let Some((sign, _)) = one(rest, layers, |byte| byte == b'#') {
        let x = one(&rest[sign..], layers, |byte| matches!(byte, b'x' | b'X'));
        let (x, radix) = x.map_or((0, 10), |(bytes, _)| (bytes, 16));
        if let Some((bytes, code)) = number(&rest[sign + x..], 1..=DIGITS_MAX, radix, layers)
            && let Some(char) = char::from_u32(code)
        {
            push(sign + x + bytes, Meant::of(char), false);
        }
        return;
    }
    // The letters, and where each ends.
    let (mut letters, mut ends, mut count, mut end) = ([0; NAME_BYTES_MAX], [0; NAME_BYTES_MAX], 0, 0);
    while count < NAME_BYTES_MAX
        && let Some((bytes, letter)) = one(&rest[end..], layers, |byte| byte.is_ascii_alphanumeric())
    {
        end += bytes;
        (letters[count], ends[count]) = (letter, end);
        count += 1;
    }
    let letters = &letters[..count];
    for (name, byte) in NAMES.iter().filter(|(name, _)| letters.starts_with(name.as_bytes())) {
        let needs_end = !OLD.iter().any(|old| old.eq_ignore_ascii_case(name));
        push(ends[name.len() - 1], Meant::Byte(*byte), needs_end);
    }
    for (char, name) in ('\u{a0}'..='\u{ff}').zip(LATIN_1).filter(|(_, name)| letters.starts_with(name.as_bytes())) {
        push(ends[name.len() - 1], Meant::Char(char), false);
    }
}
