//! A placeholder marks where a secret goes in a URL: `https://api.example.com/bot{secret:token}/send`.
//!
//! Some services accept their token only there. The guest, previews and errors show the placeholder; only the dialled
//! URL has the value. A placeholder may stand in the path or in the query, and its value stays there.
//! Percent-encoded, it can neither begin another part of the URL nor lead to another server.

use outbound::egress::{EgressError, parse_long_url, parse_url};
use outbound::secret_value::SecretValue;
use url::Url;

const OPEN: &str = "{secret:";
const CLOSE: char = '}';
/// Maximum number of placeholders in a URL. Real services need one; the rest is reserve.
const PLACEHOLDERS_MAX: usize = 8;
/// A URL with placeholders, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template<'a> {
    text: &'a str,
    /// The text before each placeholder, and the secret's name.
    parts: Vec<(&'a str, &'a str)>,
    rest: &'a str,
}

impl<'a> Template<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, EgressError> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once(OPEN) {
            let Some((name, behind)) = behind.split_once(CLOSE) else {
                return Err(invalid("has a \"{secret:\" without its \"}\""));
            };
            if parts.len() == PLACEHOLDERS_MAX {
                return Err(invalid("has more than 8 secrets in it"));
            }
            parts.push((before, name));
            rest = behind;
        }
        Ok(Self { text, parts, rest })
    }

    /// Returns the names of the secrets, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.parts.iter().map(|(_, name)| *name)
    }

    pub(super) fn has_secrets(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Returns the text as it may be shown.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// Returns the URL with harmless text instead of the secrets, which shows where the request goes.
    pub(super) fn without_secrets(&self) -> Result<Url, EgressError> {
        let url = parse_url(&self.filled(|_, _| "x".to_owned()))?;
        // If another value changes the origin, the placeholder is not in the path or the query.
        let other = parse_url(&self.filled(|_, _| "y".to_owned()))?;
        if url.origin() != other.origin() {
            return Err(invalid("has a secret where its host is"));
        }
        Ok(url)
    }

    /// Returns the URL with the secrets' values, in the order of [`Self::names`]. Errors neither show the values nor
    /// depend on how they combine with the plugin's text: [`Self::without_secrets`] and
    /// [`SecretValue::check_for_url`] have checked everything.
    pub(super) fn with_secrets(&self, values: &[&SecretValue]) -> Result<Url, EgressError> {
        let shape = self.without_secrets()?;
        let value = |index: usize, is_in_query: bool| match values.get(index) {
            Some(value) if is_in_query => value.in_query(),
            Some(value) => value.in_path(),
            None => String::new(),
        };
        let url = parse_long_url(&self.filled(value)).map_err(|_| invalid("is none once its secrets are filled in"))?;
        let segments = |url: &Url| url.path_segments().map_or(0, Iterator::count);
        if url.origin() != shape.origin() || segments(&url) != segments(&shape) {
            return Err(invalid("has a secret in it whose value is nothing that can stand there"));
        }
        Ok(url)
    }

    /// Fills in the placeholders. `value` gets the placeholder's index, and whether it is in the query.
    fn filled(&self, value: impl Fn(usize, bool) -> String) -> String {
        let mut text = String::with_capacity(self.text.len());
        for (index, (before, _)) in self.parts.iter().enumerate() {
            text.push_str(before);
            text.push_str(&value(index, text.contains('?')));
        }
        text + self.rest
    }
}

fn invalid(why: &str) -> EgressError {
    EgressError::Invalid(format!("the URL {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(text: &str, values: &[&str]) -> Result<String, String> {
        let template = Template::parse(text).map_err(|error| error.to_string())?;
        let values: Vec<_> =
            values.iter().map(|value| SecretValue::new(value.as_bytes().to_vec())).collect::<Result<_, _>>()?;
        values.iter().try_for_each(SecretValue::check_for_url)?;
        let values: Vec<_> = values.iter().collect();
        template.with_secrets(&values).map(String::from).map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_takes_its_placeholders_place() {
        for (text, values, expected) in [
            ("https://a.example/bot{secret:t}/send", &["123:AB-c_d"][..], "https://a.example/bot123:AB-c_d/send"),
            ("https://a.example/{secret:a}/{secret:b}?c={secret:a}", &["1", "2", "3"], "https://a.example/1/2?c=3"),
            ("https://a.example/x?sig={secret:t}&v=1", &["a+b/c=&d"], "https://a.example/x?sig=a%2Bb%2Fc%3D%26d&v=1"),
            (
                "https://a.example/{secret:t}",
                &["a/b?c#d%2e\\\n é"],
                "https://a.example/a%2Fb%3Fc%23d%252e%5C%0A%20%C3%A9",
            ),
            ("https://a.example/x", &[], "https://a.example/x"),
            ("https://a.example/{secrets}", &[], "https://a.example/{secrets}"),
        ] {
            let expected = expected.replace('{', "%7B").replace('}', "%7D");
            assert_eq!(filled(text, values), Ok(expected), "{text}");
        }
        let template = Template::parse("https://a.example/{secret:a}?b={secret:b.c}").unwrap();
        assert_eq!(template.names().collect::<Vec<_>>(), ["a", "b.c"]);
        assert_eq!(template.without_secrets().unwrap().as_str(), "https://a.example/x?b=x");
    }

    #[test]
    fn no_value_leads_anywhere_else() {
        for text in [
            "https://{secret:t}/a",
            "https://{secret:t}.example/a",
            "https://a.example{secret:t}/a",
            "https://a.example:{secret:t}/a",
            "https://{secret:t}@a.example/a",
            "https://u:{secret:t}@a.example/a",
            "https:///{secret:t}/a",
            "https:\\\\{secret:t}/a",
            "{secret:t}",
            "{secret:t}://a.example/",
            "https://a.example/{secret:t",
        ] {
            for value in ["evil.example", "443", "x"] {
                assert!(filled(text, &[value]).is_err(), "{text} {value}");
            }
        }
        // In any position.
        for text in
            ["https://a.example/a/{secret:t}/b", "https://a.example/a/b{secret:t}", "https://a.example/?{secret:t}"]
        {
            for value in [".", ".."] {
                assert_eq!(filled(text, &[value]).unwrap_err(), "its value is nothing that can stand in a URL");
            }
        }
        assert!(filled(&format!("https://a.example/{}", "{secret:t}".repeat(9)), &["x"; 9]).is_err());
    }

    #[test]
    fn no_error_shows_a_value() {
        let long = "canary".repeat(400);
        for text in ["https://a.example/{secret:t}", "https://{secret:t}/", "https://a.example/?{secret:t}"] {
            if let Err(error) = filled(text, &[&long]) {
                assert!(!error.contains("canary"), "{error}");
            }
        }
        assert!(filled("https://a.example/{secret:t}", &[&long]).is_err());
    }

    #[test]
    fn what_a_plugin_writes_around_a_value_does_not_tell_its_length() {
        // The longest URL allowed, with each placeholder counted as one character.
        let text = format!("https://a.example/{}/{}", "x".repeat(8192 - 19 - 8), "{secret:t}".repeat(8));
        for value in ["x".to_owned(), "x".repeat(2048), "/".repeat(2048)] {
            let url = filled(&text, &[&*value; 8]).unwrap();
            assert!(url.len() >= 8192 - 8 + 8 * value.len(), "{}", url.len());
            outbound::egress::Target::new(url.parse().unwrap()).unwrap();
        }
        assert!(filled(&format!("{text}x"), &["x"; 8]).is_err());
        assert!(filled("https://a.example/{secret:t}", &[&"x".repeat(2049)]).unwrap_err().contains("2 KiB"));
    }

    proptest! {
        #[test]
        fn a_value_stays_in_its_place(value in "(?s).{1,40}|[./\\\\?#@:%a]{1,10}") {
            for (text, before, after) in [
                ("https://a.example/b/{secret:t}/c?d=e", "https://a.example/b/", "/c?d=e"),
                ("https://a.example/b?d={secret:t}&f=g", "https://a.example/b?d=", "&f=g"),
            ] {
                // One line feed at the end is not part of the value.
                let value = value.strip_suffix('\n').map_or(&*value, |value| value.strip_suffix('\r').unwrap_or(value));
                let Ok(url) = filled(text, &[value]) else {
                    prop_assert!(matches!(value, "" | "." | ".."), "{:?}", value);
                    continue;
                };
                // Redaction finds the value in exactly this form.
                let own = SecretValue::new(value.as_bytes().to_vec()).unwrap();
                prop_assert!(url.contains(&own.in_path()) || url.contains(&own.in_query()));
                let encoded = url.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                let encoded = encoded.ok_or_else(|| TestCaseError::fail(url.clone()))?;
                prop_assert!(!encoded.contains(['/', '?', '#', '\\']));
                let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap();
                prop_assert_eq!(decoded, value);
            }
        }
    }
}
