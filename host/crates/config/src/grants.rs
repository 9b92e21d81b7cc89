//! Grants of one plugin, `[grants]` in its file: a list of scopes for each capability.

use std::fmt::{self, Display};
use std::str::FromStr;

use lettre::Address;
use url::Host;

use crate::network::Network;
use crate::origin::{Origin, is_domain};
use crate::reader::{Faults, Table, key};
use crate::secret_name;

/// Maximum bytes of a scope, whether requested or granted.
const SCOPE_BYTES_MAX: usize = 512;

/// A capability that can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    Http,
    Mail,
    Secret,
}

impl Capability {
    pub const ALL: [Self; 3] = [Self::Http, Self::Mail, Self::Secret];

    /// Returns the name that plugins use. It is also the key in `[grants]`, except for secrets, which have their own
    /// tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Mail => "mail",
            Self::Secret => "secret",
        }
    }
}

impl Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Capability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|capability| capability.as_str() == text);
        known.ok_or_else(|| format!("there is no capability {text:?}; there are http, mail and secret"))
    }
}

/// One grant in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub capability: Capability,
    text: String,
}

impl Scope {
    /// Parses a scope. The error says what was expected.
    pub fn new(capability: Capability, text: &str) -> Result<Self, String> {
        if text.len() > SCOPE_BYTES_MAX {
            return Err(format!("it has {} bytes, and may have {SCOPE_BYTES_MAX}", text.len()));
        }
        let text = match capability {
            Capability::Http => text.parse::<Origin>()?.to_string(),
            Capability::Mail => recipient(text)?,
            Capability::Secret => secret_name::name(text)?,
        };
        Ok(Self { capability, text })
    }

    /// Whether this scope includes everything that `other` covers.
    fn covers(&self, other: &Self) -> bool {
        // `*` matches any text in its place: `https://*.example.com`, `*@example.com`.
        let within = |pattern: &str| {
            let (before, after) = pattern.split_once('*')?;
            let place = other.text.strip_prefix(before)?.strip_suffix(after)?;
            Some(!place.is_empty() && !place.contains(['@', '/']))
        };
        self.capability == other.capability && (self.text == other.text || within(&self.text).unwrap_or(false))
    }
}

impl Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// All grants of one plugin; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    scopes: Vec<Scope>,
    /// Non-public addresses that granted hosts may resolve to. Plugins cannot request them, because only the operator
    /// knows where a name leads.
    pub networks: Vec<Network>,
}

impl Grants {
    pub(super) fn read(faults: &mut Faults<'_>, mut table: Table<'_>) -> Self {
        let mut scopes = Vec::new();
        let http = key(Capability::Http.as_str(), "Where it may send requests: scheme, host and, if need be, port; https://*.example.com is all hosts below that one")
            .default("[]")
            .example("[\"https://hooks.example.com\"]");
        let mail = key(Capability::Mail.as_str(), "Whom it may write to: addresses, and domains by *@")
            .default("[]")
            .example("[\"ops@example.com\", \"*@example.org\"]");
        let networks = key("networks", "Addresses that are not public, which http may lead to")
            .default("[]")
            .example("[\"10.0.0.0/8\"]");
        for (capability, key) in [(Capability::Http, http), (Capability::Mail, mail)] {
            let granted = table.list_of(faults, key, |text| Scope::new(capability, text));
            scopes.extend(granted.unwrap_or_default());
        }
        let networks = table.list(faults, networks).unwrap_or_default();
        table.refuse(faults, "secret", |names| {
            let name = names.first().map_or("NAME", String::as_str);
            format!(
                "each secret has a table of its own now, which says where its value comes from: instead of this write \
                 {} and below it env = \"VARIABLE\", file = \"PATH\" or credential = \"NAME\"",
                secret_name::heading(name)
            )
        });
        table.finish(faults);
        Self { scopes, networks }
    }

    /// Returns the origins that HTTP requests may go to.
    pub fn origins(&self) -> Vec<Origin> {
        // Scopes are stored in their canonical form, which always parses.
        self.of(Capability::Http).filter_map(|scope| scope.text.parse().ok()).collect()
    }

    /// Adds a grant for each secret. A secret's table is its grant.
    pub(super) fn add_secrets<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.scopes.extend(names.map(|name| Scope { capability: Capability::Secret, text: name.to_owned() }));
    }

    pub fn of(&self, capability: Capability) -> impl Iterator<Item = &Scope> {
        self.scopes.iter().filter(move |scope| scope.capability == capability)
    }

    pub fn cover(&self, scope: &Scope) -> bool {
        self.scopes.iter().any(|granted| granted.covers(scope))
    }
}

/// Parses a recipient: `ops@example.com`, or `*@example.com` for a whole domain.
fn recipient(text: &str) -> Result<String, String> {
    let address = match text.strip_prefix("*@") {
        Some(domain) => mail_domain(domain).map(|domain| format!("*@{domain}")),
        None => mail_address(text).map(|address| address.to_string()),
    };
    address.map_err(|why| {
        format!("expected a recipient such as \"ops@example.com\" or \"*@example.com\", got {text:?}: {why}")
    })
}

/// Parses one address and brings its domain into canonical form. The error is a fragment that says what is wrong.
pub fn mail_address(text: &str) -> Result<Address, String> {
    let (local, domain) = text.rsplit_once('@').ok_or("there is no @ in it")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'+/=?^_`{|}~-".contains(&byte);
    if let Some(character) = local.chars().find(|character| !u8::try_from(*character).is_ok_and(allowed)) {
        let what = if character.is_ascii() { "stand" } else { "stand, not being ASCII," };
        return Err(format!("before the @ there cannot {what} {character:?}"));
    }
    Address::new(local, mail_domain(domain)?)
        .map_err(|_| "it is too long, or has dots where there can be none".to_owned())
}

/// Parses a mail domain: a name, not an IP address.
fn mail_domain(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no domain");
    // The URL parser would decode percent escapes.
    if text.contains('%') {
        return Err(wrong());
    }
    match Host::parse(text) {
        Ok(Host::Domain(name)) if is_domain(&name) => Ok(name),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(capability: Capability, text: &str, expected: Option<&str>) {
        let scope = Scope::new(capability, text);
        assert_eq!(scope.as_ref().ok().map(ToString::to_string).as_deref(), expected, "{text}: {scope:?}");
    }

    #[test]
    fn a_scope_is_what_its_capability_can_mean() {
        check(Capability::Http, "https://hooks.Example.com/", Some("https://hooks.example.com"));
        check(Capability::Http, "example.com", None);
        for (text, expected) in [
            ("ops@Example.com", Some("ops@example.com")),
            ("*@example.com", Some("*@example.com")),
            ("*", None),
            ("a*@example.com", None),
            ("a b@example.com", None),
            ("*@bücher.example", Some("*@xn--bcher-kva.example")),
            ("jürgen@example.com", None),
            (".a@example.com", None),
            ("a@127.0.0.1", None),
            ("a@[127.0.0.1]", None),
            ("a@ex%61mple.com", None),
            ("a@example.com.", None),
            ("a@example.com\r\n", None),
            ("@example.com", None),
            ("ops@", None),
        ] {
            check(Capability::Mail, text, expected);
        }
        check(Capability::Secret, "slack-token", Some("slack-token"));
        check(Capability::Secret, "../token", None);
        check(Capability::Secret, "", None);
    }

    #[test]
    fn a_wider_scope_covers_a_narrower_one() {
        for (capability, granted, asked, expected) in [
            (Capability::Http, "https://*.example.com", "https://api.example.com", true),
            (Capability::Http, "https://*.example.com", "https://example.com", false),
            (Capability::Http, "https://*.example.com", "https://api.example.com:8443", false),
            (Capability::Http, "https://api.example.com", "https://*.example.com", false),
            (Capability::Http, "https://api.example.com", "http://api.example.com", false),
            (Capability::Mail, "*@example.com", "ops@example.com", true),
            (Capability::Mail, "*@example.com", "ops@example.org", false),
        ] {
            let scope = |text| Scope::new(capability, text).unwrap();
            assert_eq!(scope(granted).covers(&scope(asked)), expected, "{granted} {asked}");
        }
    }
}
