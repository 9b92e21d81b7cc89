//! An origin is the target of a request: scheme, host and port. `https://*.example.com` stands for all hosts below
//! that domain.

use std::fmt::{self, Display};
use std::str::FromStr;

use url::{Host, Url};

/// One origin, or all below a domain, in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    is_secure: bool,
    host: HostPattern,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum HostPattern {
    Exactly(Host),
    /// All hosts whose name ends with a dot and this domain.
    Below(String),
}

impl Origin {
    /// Whether this origin covers a request to the URL.
    pub fn covers_url(&self, url: &Url) -> bool {
        Self::of_url(url).is_some_and(|origin| self.covers(&origin))
    }

    /// Whether this origin includes everything that `other` covers.
    pub fn covers(&self, other: &Self) -> bool {
        let is_same_host = || match (&self.host, &other.host) {
            (HostPattern::Exactly(own), HostPattern::Exactly(host)) => own == host,
            (HostPattern::Below(own), HostPattern::Exactly(Host::Domain(host))) => is_below(host, own),
            (HostPattern::Exactly(_), HostPattern::Below(_))
            | (HostPattern::Below(_), HostPattern::Exactly(Host::Ipv4(_) | Host::Ipv6(_))) => false,
            (HostPattern::Below(own), HostPattern::Below(host)) => own == host || is_below(host, own),
        };
        (self.is_secure, self.port) == (other.is_secure, other.port) && is_same_host()
    }

    /// Returns the origin of a URL; `None` if it is neither http nor https.
    pub fn of_url(url: &Url) -> Option<Self> {
        let is_secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = HostPattern::Exactly(in_one_spelling(url.host()?.to_owned()));
        Some(Self { is_secure, host, port: url.port_or_known_default()? })
    }
}

/// Removes the trailing dot: `example.com.` is the same host as `example.com`.
fn in_one_spelling(host: Host) -> Host {
    match host {
        Host::Domain(name) => Host::Domain(name.strip_suffix('.').map(str::to_owned).unwrap_or(name)),
        address @ (Host::Ipv4(_) | Host::Ipv6(_)) => address,
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')).is_some_and(|name| !name.is_empty())
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).ok_or_else(|| {
            format!(
                "expected scheme, host and, if need be, port, such as \"https://api.example.com\" or \
                 \"https://*.example.com:8443\", got {text:?}"
            )
        })
    }
}

fn parse(text: &str) -> Option<Origin> {
    // The URL parser would silently fix or drop these characters.
    if text.contains(|character: char| character.is_whitespace() || character.is_control() || character == '\\') {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    let below = rest.strip_prefix("*.");
    let url = Url::parse(&format!("{scheme}://{}", below.unwrap_or(rest))).ok()?;
    let is_bare = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && !rest.contains('@');
    let Origin { is_secure, host: HostPattern::Exactly(host), port } = Origin::of_url(&url).filter(|_| is_bare)? else {
        return None;
    };
    let host = match (below, host) {
        (_, Host::Domain(name)) if !is_domain(&name) => return None,
        (None, host) => HostPattern::Exactly(host),
        (Some(_), Host::Domain(name)) => HostPattern::Below(name),
        (Some(_), Host::Ipv4(_) | Host::Ipv6(_)) => return None,
    };
    (port > 0).then_some(Origin { is_secure, host, port })
}

/// Whether the text consists of labels of letters, digits, `-` and `_`.
pub(super) fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.split('.').all(is_label)
}

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default_port) = if self.is_secure { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://")?;
        match &self.host {
            HostPattern::Exactly(host) => write!(f, "{host}")?,
            HostPattern::Below(domain) => write!(f, "*.{domain}")?,
        }
        if self.port == default_port { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_spelling() {
        for (text, expected) in [
            ("https://hooks.Example.com/", Some("https://hooks.example.com")),
            ("https://hooks.example.com.", Some("https://hooks.example.com")),
            ("HTTPS://hooks.example.com:443", Some("https://hooks.example.com")),
            ("http://localhost:8080", Some("http://localhost:8080")),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("http://2130706433", Some("http://127.0.0.1")),
            ("https://bücher.example", Some("https://xn--bcher-kva.example")),
            ("https://*.example.com", Some("https://*.example.com")),
            ("https://*.bücher.example:8443", Some("https://*.xn--bcher-kva.example:8443")),
            ("https://*", None),
            ("https://*.127.0.0.1", None),
            ("https://a.*.com", None),
            ("https://example.com/path", None),
            ("https://example.com?q", None),
            ("https://user@example.com", None),
            ("https://@example.com", None),
            ("https://example.com:0", None),
            ("https://example.com:65536", None),
            ("https://exam ple.com", None),
            ("https://[::1", None),
            ("ftp://example.com", None),
            ("example.com", None),
            ("https://", None),
            ("https://example..com", None),
        ] {
            let origin = text.parse::<Origin>();
            assert_eq!(origin.as_ref().ok().map(ToString::to_string).as_deref(), expected, "{text}: {origin:?}");
            if let Some(spelling) = expected {
                assert_eq!(spelling.parse::<Origin>(), origin, "{text}");
            }
        }
    }

    #[test]
    fn a_url_goes_to_one_origin() {
        for (granted, url, expected) in [
            ("https://api.example.com", "https://api.example.com/a?b#c", true),
            ("https://api.example.com", "https://API.example.com.:443/", true),
            ("https://api.example.com", "https://api.example.com@evil.example/", false),
            ("https://api.example.com", "https://api.example.com.evil.example/", false),
            ("https://api.example.com", "https://api.example.com:8443/", false),
            ("https://api.example.com", "http://api.example.com:443/", false),
            ("https://*.example.com", "https://a.b.example.com/", true),
            ("https://*.example.com", "https://example.com/", false),
            ("https://*.example.com", "https://badexample.com/", false),
            ("https://*.example.com", "https://.example.com/", false),
            ("http://127.0.0.1", "http://0x7f.1/", true),
        ] {
            let origin: Origin = granted.parse().unwrap();
            assert_eq!(Url::parse(url).is_ok_and(|url| origin.covers_url(&url)), expected, "{granted} {url}");
        }
    }
}
