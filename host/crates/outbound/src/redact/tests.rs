use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use proptest::prelude::*;
use proptest::sample::select;

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
    // A value for Basic authentication, as its receiver decodes it.
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
                    // The digits left over share a few bits with the neighbours of the value.
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
fn nothing_of_it_is_shown() {
    let shown = format!("{:?}", redactor(&[("a", "abcdefgh")]));
    assert!(
        shown.starts_with("Redactor { needles: ") && !shown.contains("abcdefgh") && !shown.contains("97"),
        "{shown}"
    );
}

/// A way in which servers write a text.
type Writer = fn(&str) -> String;

fn each(text: &str, is_written: fn(char) -> bool, write: fn(char) -> String) -> String {
    text.chars().map(|char| if is_written(char) { write(char) } else { char.to_string() }).collect()
}

fn each_byte(text: &str, write: fn(u8) -> String) -> String {
    text.bytes().map(write).collect()
}

fn is_any(_: char) -> bool {
    true
}

fn is_special(char: char) -> bool {
    !char.is_ascii_alphanumeric()
}

fn units(char: char, write: fn(u16) -> String) -> String {
    char.encode_utf16(&mut [0; 2]).iter().map(|unit| write(*unit)).collect()
}

fn small_percent(char: char) -> String {
    percent_encode(char.to_string().as_bytes(), NON_ALPHANUMERIC).to_string().to_ascii_lowercase()
}

/// Each writer preserves the output of any other.
const WRITERS: [Writer; 12] = [
    |text| percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string(),
    |text| each(text, is_special, small_percent),
    |text| each_byte(text, |byte| format!("%{byte:02X}")),
    |text| url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
    |text| serde_json::Value::from(text).to_string(),
    |text| serde_json::Value::from(text).to_string().replace('/', "\\/"),
    |text| each(text, is_special, |char| units(char, |unit| format!("\\u{unit:04x}"))),
    |text| each(text, is_any, |char| units(char, |unit| format!("\\u{unit:04X}"))),
    |text| each(text, |char| "&<>\"'".contains(char), |char| format!("&#x{:x};", u32::from(char))),
    |text| each(text, is_special, |char| format!("&#{};", u32::from(char))),
    |text| {
        let names =
            [('&', "amp"), ('<', "lt"), ('>', "gt"), ('"', "quot"), ('/', "sol"), ('=', "equals"), ('+', "plus")];
        let name = |char| names.iter().find(|(named, _)| *named == char);
        text.chars().map(|char| name(char).map_or(char.to_string(), |(_, name)| format!("&{name};"))).collect()
    },
    |text| {
        text.bytes()
            .map(|byte| {
                if !byte.is_ascii_graphic() || b"=&".contains(&byte) {
                    format!("={byte:02X}")
                } else {
                    (byte as char).to_string()
                }
            })
            .collect()
    },
];

/// Text that a plugin may put before a secret, hoping that the secret's beginning is read as part of it.
const BEFORE: [&str; 12] = ["", "%", "%2", "%25", "\\", "\\\\", "\\u00", "&#", "&", "&amp", "=", "bot"];

fn values() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9]{6,12}|[ -~]{6,70}|[0-9a-f/+=%&]{8,40}|[a-zé€ß/]{6,20}"
        .prop_filter("one value", |value| value.trim().len() >= 6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_value_is_found_however_two_servers_wrote_it(value in values(), before in select(&BEFORE[..])) {
        let redactor = redactor(&[("t", &value)]);
        // This much may be left, with the quotation marks of JSON.
        let room = format!("{before}\"\"");
        let once: Vec<_> = WRITERS.iter().map(|writer| format!("{before}{}", writer(&value))).collect();
        // Both the host and a server encode the text before it. Mails are not encoded any further.
        let twice = once.iter().flat_map(|text| WRITERS[..11].iter().map(|writer| (writer(text), writer(&room).len() + 2)));
        for (text, room) in once.iter().map(|text| (text.clone(), room.len())).chain(twice) {
            let left = String::from_utf8(redactor.redact(text.as_bytes()).into_owned()).unwrap();
            prop_assert!(left.contains("[secret t]"), "{:?} in {:?}", value, text);
            prop_assert!(left.len() <= "[secret t]".len() + room, "{:?} in {:?}: {:?}", value, text, left);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_value_is_found_in_utf_16_and_in_base64_of_what_was_sent(
        value in "[ -~]{6,40}", writer in select(&WRITERS[..]), before in "[a-z]{0,3}", after in "[a-z ]{0,3}",
    ) {
        prop_assume!(value.trim().len() >= 6);
        let own = SecretValue::new(value.clone().into_bytes()).unwrap();
        let redactor = redactor(&[("t", &value)]);
        let written = format!("<{}>", writer(&value));
        let wide = written.encode_utf16();
        for bytes in [wide.clone().flat_map(u16::to_le_bytes).collect::<Vec<_>>(), wide.flat_map(u16::to_be_bytes).collect()] {
            let left = String::from_utf8_lossy(&redactor.redact(&bytes)).replace('\0', "");
            prop_assert!(left.contains("[secret t]") && left.len() < 18, "{:?} in {:?}: {:?}", value, written, left);
        }
        for sent in [value.clone(), own.in_path(), own.in_query()] {
            let encoded = STANDARD_NO_PAD.encode(format!("{before}{sent}{after}"));
            for text in [encoded.clone(), writer(&encoded)] {
                let left = String::from_utf8(redactor.redact(text.as_bytes()).into_owned()).unwrap();
                prop_assert!(left.contains("[secret t]"), "{:?} in {:?}", value, text);
            }
        }
    }

    /// Parts of either value, as a guest would try them.
    #[test]
    fn parts_of_a_value_change_nothing(
        (one, other) in (10usize..80).prop_flat_map(|length| {
            let value = format!("[a-zA-Z0-9/+=]{{{length}}}");
            (proptest::string::string_regex(&value).unwrap(), proptest::string::string_regex(&value).unwrap())
        }),
        parts in prop::collection::vec((any::<bool>(), any::<bool>(), any::<prop::sample::Index>(), select(&WRITERS[..])), 1..20),
    ) {
        let mut text = String::new();
        for (is_one, is_beginning, length, writer) in parts {
            let value = if is_one { &one } else { &other };
            // Never the whole value, and no value contains the separator. An end lacks more than four characters: fewer may
            // be the digits of its first escape, and then the text does contain the whole value.
            let least = if is_beginning { 1 } else { 5 };
            let at = least + length.index(value.len() - least - 1);
            text += &writer(if is_beginning { &value[..at] } else { &value[at..] });
            text.push('|');
        }
        for value in [&one, &other] {
            let redactor = redactor(&[("t", value)]);
            prop_assert_eq!(&*redactor.redact(text.as_bytes()), text.as_bytes(), "{:?}", value);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_text_in_pieces_is_redacted_as_a_whole(
        pieces in prop::collection::vec("[a-c]{0,3}|abcabcab|%61bcabcab|xxabcabca", 1000..1500), cuts in prop::collection::vec(1usize..40, 1..20),
    ) {
        let text = pieces.concat().into_bytes();
        let redactor = redactor(&[("t", "abcabcab"), ("u", "cabbac")]);
        let (mut redaction, mut out, mut rest) = (Redaction::default(), Vec::new(), &text[..]);
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at(rest.len().min(*cut));
            redaction.push(&redactor, piece, &mut out);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        // Otherwise nothing was cut that could be.
        prop_assert!(out.len() > 500);
        redaction.finish(&redactor, &mut out);
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8(redactor.redact(&text).into_owned()).unwrap());
    }
}

#[test]
fn what_mails_and_base64_have_within_a_word_hides_nothing() {
    let value = "a-value-that-is-long";
    check(value, "a-value-\r\nthat-is-long", "[secret token]");
    check(value, "a-value-=\r\nthat=2Dis-long", "[secret token]");
    check(value, "a-value-\r\n that-is-long", "[secret token]");
    check(value, "YS12YWx1ZS10aGF0LW\\nlzLWxvbmc=", "[secret token]=");
    check(value, "A-VALUE-That-is-long", "[secret token]");
    check(value, "a-value-that is-long", "a-value-that is-long");
    check("\u{1f511}s and locks", "\\ud83d\\udd11s\\u0020and locks", "[secret token]");
    check("\u{1f511}s and locks", "&#128273;s and locks", "[secret token]");
}

#[test]
fn a_long_value_is_found_by_its_end_and_known_as_a_whole() {
    let value = (0..400).map(|number| format!("{number}.")).collect::<Vec<_>>().concat();
    check(&value, &format!("<{value}>"), "<[secret token]>");
    let end = &value[1..];
    check(&value, end, end);
    let json = value.replace('.', "\\u002e");
    check(&value, &json, "[secret token]");
}

/// The matcher must end soon on any input: here 16 KiB, without optimization.
#[test]
fn malice_takes_bounded_time() {
    let redactor = redactor(&[
        ("t", "\\\\\\\\\\\\\\\\"),
        ("u", "%25%25%25&amp;&amp;"),
        ("v", "aaaaaaaa"),
        ("w", &"ab".repeat(500)),
    ]);
    for piece in [
        "\\",
        "%25",
        "%5C",
        "&amp;",
        "&#38;#38;",
        "\\u005c",
        "=3D",
        "\0",
        "\\&quot;",
        "%26%23x26%3B",
        "a",
        "\\u0061",
        "ab",
    ] {
        let text = piece.repeat((16 << 10) / piece.len());
        let begun = std::time::Instant::now();
        drop(redactor.redact(text.as_bytes()));
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{piece:?}: {:?}", begun.elapsed());
    }
}
