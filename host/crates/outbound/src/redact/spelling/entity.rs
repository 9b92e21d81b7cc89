//! HTML character references, by number and, for ASCII and Latin-1, by name: `&#38;`, `&#x26;`, `&amp;`, `&auml;`.

use crate::redact::spelling::{Decoded, Spellings, layers_behind, number, one};

/// Maximum number of digits of a numeric reference. Browsers accept any number of leading zeros.
const DIGITS_MAX: usize = 7;
/// Bytes of the longest name, `DiacriticalGrave`.
const NAME_BYTES_MAX: usize = 16;

/// HTML's names for ASCII and Latin-1, sorted.
#[rustfmt::skip]
const NAMES: [(&str, char); 141] = [
    ("AElig", '\u{c6}'), ("AMP", '&'), ("Aacute", '\u{c1}'), ("Acirc", '\u{c2}'), ("Agrave", '\u{c0}'),
    ("Aring", '\u{c5}'), ("Atilde", '\u{c3}'), ("Auml", '\u{c4}'), ("Ccedil", '\u{c7}'), ("DiacriticalGrave", '`'),
    ("ETH", '\u{d0}'), ("Eacute", '\u{c9}'), ("Ecirc", '\u{ca}'), ("Egrave", '\u{c8}'), ("Euml", '\u{cb}'),
    ("GT", '>'), ("Hat", '^'), ("Iacute", '\u{cd}'), ("Icirc", '\u{ce}'), ("Igrave", '\u{cc}'), ("Iuml", '\u{cf}'),
    ("LT", '<'), ("NewLine", '\n'), ("Ntilde", '\u{d1}'), ("Oacute", '\u{d3}'), ("Ocirc", '\u{d4}'),
    ("Ograve", '\u{d2}'), ("Oslash", '\u{d8}'), ("Otilde", '\u{d5}'), ("Ouml", '\u{d6}'), ("QUOT", '"'),
    ("THORN", '\u{de}'), ("Tab", '\t'), ("Uacute", '\u{da}'), ("Ucirc", '\u{db}'), ("Ugrave", '\u{d9}'),
    ("UnderBar", '_'), ("Uuml", '\u{dc}'), ("VerticalLine", '|'), ("Yacute", '\u{dd}'), ("aacute", '\u{e1}'),
    ("acirc", '\u{e2}'), ("acute", '\u{b4}'), ("aelig", '\u{e6}'), ("agrave", '\u{e0}'), ("amp", '&'), ("apos", '\''),
    ("aring", '\u{e5}'), ("ast", '*'), ("atilde", '\u{e3}'), ("auml", '\u{e4}'), ("brvbar", '\u{a6}'), ("bsol", '\\'),
    ("ccedil", '\u{e7}'), ("cedil", '\u{b8}'), ("cent", '\u{a2}'), ("colon", ':'), ("comma", ','), ("commat", '@'),
    ("copy", '\u{a9}'), ("curren", '\u{a4}'), ("deg", '\u{b0}'), ("divide", '\u{f7}'), ("dollar", '$'),
    ("eacute", '\u{e9}'), ("ecirc", '\u{ea}'), ("egrave", '\u{e8}'), ("equals", '='), ("eth", '\u{f0}'),
    ("euml", '\u{eb}'), ("excl", '!'), ("frac12", '\u{bd}'), ("frac14", '\u{bc}'), ("frac34", '\u{be}'),
    ("grave", '`'), ("gt", '>'), ("iacute", '\u{ed}'), ("icirc", '\u{ee}'), ("iexcl", '\u{a1}'), ("igrave", '\u{ec}'),
    ("iquest", '\u{bf}'), ("iuml", '\u{ef}'), ("laquo", '\u{ab}'), ("lbrace", '{'), ("lbrack", '['), ("lcub", '{'),
    ("lowbar", '_'), ("lpar", '('), ("lsqb", '['), ("lt", '<'), ("macr", '\u{af}'), ("micro", '\u{b5}'),
    ("midast", '*'), ("middot", '\u{b7}'), ("nbsp", '\u{a0}'), ("not", '\u{ac}'), ("ntilde", '\u{f1}'), ("num", '#'),
    ("oacute", '\u{f3}'), ("ocirc", '\u{f4}'), ("ograve", '\u{f2}'), ("ordf", '\u{aa}'), ("ordm", '\u{ba}'),
    ("oslash", '\u{f8}'), ("otilde", '\u{f5}'), ("ouml", '\u{f6}'), ("para", '\u{b6}'), ("percnt", '%'),
    ("period", '.'), ("plus", '+'), ("plusmn", '\u{b1}'), ("pound", '\u{a3}'), ("quest", '?'), ("quot", '"'),
    ("raquo", '\u{bb}'), ("rbrace", '}'), ("rbrack", ']'), ("rcub", '}'), ("reg", '\u{ae}'), ("rpar", ')'),
    ("rsqb", ']'), ("sect", '\u{a7}'), ("semi", ';'), ("shy", '\u{ad}'), ("sol", '/'), ("sup1", '\u{b9}'),
    ("sup2", '\u{b2}'), ("sup3", '\u{b3}'), ("szlig", '\u{df}'), ("thorn", '\u{fe}'), ("times", '\u{d7}'),
    ("uacute", '\u{fa}'), ("ucirc", '\u{fb}'), ("ugrave", '\u{f9}'), ("uml", '\u{a8}'), ("uuml", '\u{fc}'),
    ("verbar", '|'), ("vert", '|'), ("yacute", '\u{fd}'), ("yen", '\u{a5}'), ("yuml", '\u{ff}'),
];
/// Names for ASCII characters that need no semicolon.
const OLD: [&str; 8] = ["amp", "AMP", "lt", "LT", "gt", "GT", "quot", "QUOT"];

/// Reads the reference after an `&`.
pub(super) fn read(rest: &[u8], before: usize, layers: u8, spellings: &mut Spellings) {
    let behind = layers_behind(before, layers);
    let mut push = |end: usize, meant, needs_end: bool| {
        if let Some((semicolon, _)) = one(&rest[end..], behind, |byte| byte == b';') {
            spellings.push(before + end + semicolon, meant, layers);
        }
        if !needs_end {
            spellings.push(before + end, meant, layers);
        }
    };
    if let Some((sign, _)) = one(rest, behind, |byte| byte == b'#') {
        let x = one(&rest[sign..], behind, |byte| matches!(byte, b'x' | b'X'));
        let (x, radix) = x.map_or((0, 10), |(bytes, _)| (bytes, 16));
        if let Some((bytes, code)) = number(&rest[sign + x..], 1..=DIGITS_MAX, radix, behind)
            && let Some(char) = char::from_u32(code)
        {
            push(sign + x + bytes, Decoded::of(char), false);
        }
        return;
    }
    // The letters, and where each ends.
    let (mut letters, mut ends, mut count, mut end) = ([0; NAME_BYTES_MAX], [0; NAME_BYTES_MAX], 0, 0);
    while count < NAME_BYTES_MAX
        && let Some((bytes, letter)) = one(&rest[end..], behind, |byte| byte.is_ascii_alphanumeric())
    {
        end += bytes;
        (letters[count], ends[count]) = (letter, end);
        count += 1;
    }
    let letters = &letters[..count];
    let Some(first) = letters.first() else { return };
    let is_before = |(name, _): &(&str, char)| name.as_bytes()[0] < *first;
    let alike = NAMES[NAMES.partition_point(is_before)..].iter().take_while(|(name, _)| name.as_bytes()[0] == *first);
    for (name, char) in alike.filter(|(name, _)| letters.starts_with(name.as_bytes())) {
        let needs_end = char.is_ascii() && !OLD.contains(name);
        push(ends[name.len() - 1], Decoded::of(*char), needs_end);
    }
}
