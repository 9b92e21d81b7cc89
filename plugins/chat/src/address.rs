//! A target's URL, parsed, in the notation that Apprise uses: tokens and names are its parts, options follow the `?`.
//!
//! Tokens are written as `{secret:NAME}`. The host fills them in, and they never appear here.

use std::collections::BTreeMap;

use crate::settings::in_url;

const OPEN: &str = "{secret:";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) scheme: String,
    pub(crate) user: Option<String>,
    /// Host and port, or the service's equivalent.
    pub(crate) host: String,
    pub(crate) segments: Vec<String>,
    pub(crate) options: BTreeMap<String, String>,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("expected a URL such as \"ntfys://ntfy.sh/topic\"")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = path.split_once('/').unwrap_or((path, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, authority),
        };
        if host.is_empty() {
            return Err("nothing stands behind ://".to_owned());
        }
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        let mut options = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if options.insert(name.to_owned(), decoded(value)?).is_some() {
                return Err(format!("the option {name:?} stands there twice"));
            }
        }
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            user,
            host: host.to_owned(),
            segments: segments.map(decoded).collect::<Result<_, _>>()?,
            options,
        })
    }

    pub(crate) fn take(&mut self, option: &str) -> Option<String> {
        self.options.remove(option)
    }

    /// Returns the option `endpoint`, or the default address of a central service.
    pub(crate) fn endpoint(&mut self, default: &str) -> Result<String, String> {
        let Some(endpoint) = self.take("endpoint") else { return Ok(default.to_owned()) };
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(format!("endpoint: expected https://HOST or http://HOST, got {endpoint:?}"));
        }
        Ok(endpoint.trim_end_matches('/').to_owned())
    }

    /// Returns the origin of a self-hosted service. The scheme `plain` means HTTP, any other HTTPS, as `gotifys` does.
    pub(crate) fn origin(&self, plain: &str) -> String {
        let scheme = if self.scheme == plain { "http" } else { "https" };
        format!("{scheme}://{}", self.host)
    }

    /// Returns the host and the parts of the path as one list.
    pub(crate) fn parts(&self) -> Vec<&str> {
        std::iter::once(&self.host).chain(&self.segments).map(String::as_str).collect()
    }

    /// Checks that every option was taken.
    pub(crate) fn finish(self, known: &str) -> Result<(), String> {
        match self.options.into_keys().next() {
            Some(option) => Err(format!("there is no option {option:?} here; there are {known}")),
            None => Ok(()),
        }
    }
}

/// Encodes the text as one part of a path. Placeholders stay unchanged.
pub(crate) fn segment(text: &str) -> String {
    each(text, |literal, out| {
        for character in literal.chars() {
            if matches!(character, '!' | '$' | '&' | '\'' | '(' | ')' | '*' | '+' | ',' | ';' | '=' | ':' | '@') {
                out.push(character);
            } else {
                in_url(None, character, out);
            }
        }
    })
}

/// Encodes the text as a value in a query.
pub(crate) fn query(text: &str) -> String {
    each(text, |literal, out| literal.chars().for_each(|character| in_url(None, character, out)))
}

fn each(mut text: &str, mut literal: impl FnMut(&str, &mut String)) -> String {
    let mut out = String::new();
    while let Some((before, name, after)) = placeholder(text) {
        literal(before, &mut out);
        out.push_str(OPEN);
        out.push_str(name);
        out.push('}');
        text = after;
    }
    literal(text, &mut out);
    out
}

/// Returns the names of the secrets in a text.
pub(crate) fn placeholders(mut text: &str) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((_, name, after)) = placeholder(text) {
        names.push(name.to_owned());
        text = after;
    }
    names
}

/// Returns the first placeholder's name, with the text before and after it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once(OPEN)?;
    let (name, after) = rest.split_once('}')?;
    is_name(name).then_some((before, name, after))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// The value of an authentication header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// The host fills in the secret after this prefix.
    Secret { prefix: &'static str, name: String },
    /// The value from the configuration.
    Text(String),
}

/// Parses a token that goes into a header.
pub(crate) fn credential(token: &str, prefix: &'static str) -> Result<Credential, String> {
    match placeholder(token) {
        Some(("", name, "")) => Ok(Credential::Secret { prefix, name: name.to_owned() }),
        None if !token.contains(OPEN) => Ok(Credential::Text(format!("{prefix}{token}"))),
        _ => Err("a token is either one {secret:NAME} or stands there in full".to_owned()),
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not percent-encoded as it should be: write %25 for %");
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |digit: Option<u8>| digit.and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit(rest.next()).ok_or_else(wrong)?, digit(rest.next()).ok_or_else(wrong)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let mut address = Address::parse("matrixs://{secret:m}@matrix.example:8448/%21room:example/?a=%23x&b").unwrap();
        assert_eq!(address.user.as_deref(), Some("{secret:m}"));
        assert_eq!(address.origin("matrix"), "https://matrix.example:8448");
        assert_eq!(address.parts(), ["matrix.example:8448", "!room:example"]);
        assert_eq!((address.take("a").as_deref(), address.take("c")), (Some("#x"), None));
        assert!(address.finish("a").unwrap_err().contains("there is no option \"b\""));
        for wrong in
            ["slack", "slack://", "slack:///a", "ntfy://a/%zz", "ntfy://a/%f", "ntfy://a/%ff", "ntfy://a?b=1&b=2"]
        {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_placeholder_stays_one_and_all_else_is_encoded() {
        assert_eq!(segment("bot{secret:telegram-token}"), "bot{secret:telegram-token}");
        assert_eq!(segment("a/b?{secret:x y}#%é:@"), "a%2Fb%3F%7Bsecret:x%20y%7D%23%25%C3%A9:@");
        assert_eq!(query("a&b=c+{secret:sig}"), "a%26b%3Dc%2B{secret:sig}");
        assert_eq!(
            credential("{secret:a}", "Bearer "),
            Ok(Credential::Secret { prefix: "Bearer ", name: "a".to_owned() })
        );
        assert_eq!(credential("tk_1", "Bearer "), Ok(Credential::Text("Bearer tk_1".to_owned())));
        assert!(credential("x{secret:a}", "").is_err());
        assert!(credential("{secret:a", "").is_err());
    }
}
