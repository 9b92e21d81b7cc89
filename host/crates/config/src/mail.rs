//! The operator's SMTP relay, `[mail]` in the host's file.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lettre::message::Mailbox;
use url::{Host, Url};

use crate::grants::mail_address;
use crate::origin::is_domain;
use crate::reader::{Faults, Privacy, Table, key};
use crate::secrets::{self, SecretSource};

/// The settings of outgoing mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailConfig {
    pub relay: RelayAddress,
    /// Sender of every mail.
    pub from: Mailbox,
    /// Name that the host gives in EHLO. `None`: the domain of `from`.
    pub hello: Option<String>,
    pub login: Option<Login>,
    /// Time limit for sending one mail, all steps included.
    pub timeout: Duration,
    /// Maximum number of connections to the relay at once, for all plugins together.
    pub connections_max: usize,
    pub dkim: Option<DkimConfig>,
}

/// Address of the relay, and how the connection is secured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    pub host: String,
    pub port: u16,
    pub security: Security,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte.
    Tls,
    /// STARTTLS, which the relay must offer.
    StartTls,
    /// No encryption; the operator set `tls = "none"`.
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: SecretSource,
}

/// The key that signs mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimConfig {
    pub domain: String,
    pub selector: String,
    /// File of the private key: RSA or Ed25519, in PEM.
    pub key: PathBuf,
}

impl Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The only value that `tls` takes.
struct NoTls;

impl FromStr for NoTls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self);
        }
        Err(format!(
            "expected \"none\", which sends mail and password unencrypted, got {text:?}; otherwise leave it out: smtp:// \
             demands STARTTLS, and smtps:// is TLS from the start"
        ))
    }
}

/// Reads `[mail]`.
pub(super) fn read(faults: &mut Faults<'_>, mut table: Table<'_>) -> Option<MailConfig> {
    let own_relay = key(
        "relay",
        "The relay: smtps://HOST:PORT is TLS from the start, smtp://HOST:PORT is STARTTLS, which the relay must offer",
    )
    .required()
    .example("smtp://mail.example.com:587")
    .private(Privacy::Whole);
    let own_from = key("from", "The sender of every mail").required().example("Shop <shop@example.com>");
    let tls = key("tls", "\"none\", for smtp:// only: mail and password travel unencrypted")
        .otherwise("They are encrypted")
        .choices(&["none"])
        .example("none")
        .instead();
    let own_hello = key("hello", "What the host calls itself: its name in DNS")
        .otherwise("The domain of `from`")
        .example("notify.example.com");
    let own_username =
        key("username", "For the login, with [mail.password]").otherwise("There is no login").example("shop");
    let own_timeout = key("timeout", "For one mail, with all that it takes").default("30s");
    let connections = key("connections", "To the relay at once, of all plugins together").default("4");
    let is_plain = table.parsed::<NoTls>(faults, tls).is_some();
    let relay = table.text_of(faults, own_relay, |text| relay(text, is_plain));
    let from = table.text_of(faults, own_from, sender);
    let hello = table.text_of(faults, own_hello, |text| {
        let is_name = is_domain(text) || text.parse::<std::net::IpAddr>().is_ok();
        is_name.then(|| text.to_owned()).ok_or_else(|| {
            format!("expected the name that the host has in DNS, such as \"notify.example.com\", got {text:?}")
        })
    });
    let username = table.text_of(faults, own_username, |text| {
        let is_empty = text.is_empty() || text.contains('\0');
        if is_empty {
            Err("it is empty: leave it out if the relay wants no login".to_owned())
        } else {
            Ok(text.to_owned())
        }
    });
    let timeout = table.duration(faults, own_timeout, Duration::from_secs(1)..Duration::from_mins(5));
    let connections_max = table.number(faults, connections, 1..65).and_then(|number| usize::try_from(number).ok());
    let own_password = key("password", "Where the password comes from, which is read anew for each connection")
        .private(Privacy::Whole);
    let password = table.table(faults, own_password).and_then(|mut table| {
        let at = table.span();
        let source = secrets::source(faults, &mut table, "mail.password", at);
        table.finish(faults);
        source
    });
    let dkim = table.table(faults, key("dkim", "Signs mail where the relay does not")).and_then(|mut table| {
        for key in ["domain", "selector", "key"] {
            if !table.has(key) {
                table.fault(faults, &format!("{key} is missing: domain, selector and key belong together"));
            }
        }
        let own_domain = key("domain", "Of the signature").required().example("example.com");
        let selector = key("selector", "The public key stands in DNS at SELECTOR._domainkey.DOMAIN")
            .required()
            .example("mail2026");
        let private_key =
            key("key", "The file of the private key: RSA or Ed25519, in PEM").required().example("dkim.pem");
        let domain = table.text_of(faults, own_domain, domain);
        let selector = table.text_of(faults, selector, domain_name);
        let key = table.path(faults, private_key);
        table.finish(faults);
        Some(DkimConfig { domain: domain?, selector: selector?, key: key? })
    });
    for (key, example) in [("relay", "smtps://mail.example.com"), ("from", "Shop <shop@example.com>")] {
        if !table.has(key) {
            table.fault(faults, &format!("{key} is missing: write {key} = \"{example}\""));
        }
    }
    match (table.has("username"), table.has("password")) {
        (true, false) => table.fault(
            faults,
            "username has no password: write [mail.password] and below it env = \"VARIABLE\", file = \"PATH\" or \
             credential = \"NAME\"",
        ),
        (false, true) => table.fault(faults, "password has no username: write username = \"NAME\" below [mail]"),
        (true, true) | (false, false) => {}
    }
    table.finish(faults);
    Some(MailConfig {
        relay: relay?,
        from: from?,
        hello,
        login: username.zip(password).map(|(username, password)| Login { username, password }),
        timeout: timeout.unwrap_or(Duration::from_secs(30)),
        connections_max: connections_max.unwrap_or(4),
        dkim,
    })
}

/// Parses the relay's URL. The error never repeats the text, because it may contain a password.
fn relay(text: &str, is_plain: bool) -> Result<RelayAddress, String> {
    let wrong =
        "expected smtps://HOST:PORT for TLS, or smtp://HOST:PORT for STARTTLS, such as \"smtps://mail.example.com\"";
    let url = Url::parse(text).map_err(|_| wrong.to_owned())?;
    let (security, default_port) = match url.scheme() {
        "smtps" if is_plain => {
            return Err("smtps:// is TLS from the start, and tls = \"none\" is none: write smtp://, or leave tls out"
                .to_owned());
        }
        "smtps" => (Security::Tls, 465),
        "smtp" if is_plain => (Security::Nothing, 25),
        "smtp" => (Security::StartTls, 587),
        _ => return Err(wrong.to_owned()),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user does not belong into the URL: write username below [mail], and [mail.password]".to_owned());
    }
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    // For a scheme that it does not know, the URL parser accepts any text as the host.
    let host = url.host_str().filter(|_| is_bare).map(Host::parse).and_then(Result::ok).ok_or(wrong)?;
    let host = match host {
        Host::Domain(name) if is_domain(&name) => name,
        Host::Domain(_) => return Err(wrong.to_owned()),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    Ok(RelayAddress { host, port: url.port().filter(|port| *port > 0).unwrap_or(default_port), security })
}

fn sender(text: &str) -> Result<Mailbox, String> {
    let wrong = |why: &str| {
        format!("expected an address such as \"Shop <shop@example.com>\" or \"shop@example.com\", got {text:?}{why}")
    };
    if text.contains(char::is_control) {
        return Err(wrong(": there is a control character in it"));
    }
    let mailbox: Mailbox = text.parse().map_err(|_| wrong(""))?;
    let address = mail_address(mailbox.email.as_ref()).map_err(|why| wrong(&format!(": {why}")))?;
    Ok(Mailbox::new(mailbox.name, address))
}

fn domain(text: &str) -> Result<String, String> {
    match Host::parse(text) {
        Ok(Host::Domain(name)) if is_domain(&name) && !text.contains('%') => Ok(name),
        _ => Err(format!("expected a domain such as \"example.com\", got {text:?}")),
    }
}

fn domain_name(text: &str) -> Result<String, String> {
    let is_name = is_domain(text);
    is_name.then(|| text.to_owned()).ok_or_else(|| format!("expected a selector such as \"mail2026\", got {text:?}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::HostConfig;

    fn parse(text: &str) -> Result<MailConfig, String> {
        HostConfig::parse(Path::new("host.toml"), text).map(|config| config.mail.unwrap())
    }

    #[test]
    fn a_whole_relay() {
        let config = parse(
            "[mail]\nrelay = \"smtp://mail.example.com\"\nfrom = \"Büro <shop@bücher.example>\"\nusername = \"u\"\n\
             hello = \"notify.example.com\"\ntimeout = \"10s\"\nconnections = 2\n[mail.password]\nenv = \"P\"\n\
             [mail.dkim]\ndomain = \"example.com\"\nselector = \"s1\"\nkey = \"/k.pem\"\n",
        )
        .unwrap();
        let relay = RelayAddress { host: "mail.example.com".to_owned(), port: 587, security: Security::StartTls };
        assert_eq!(config.relay, relay);
        assert_eq!(config.from.email.as_ref() as &str, "shop@xn--bcher-kva.example");
        assert_eq!(config.from.name.as_deref(), Some("Büro"));
        assert_eq!(config.login.unwrap().password, SecretSource::Env("P".to_owned()));
        assert_eq!((config.timeout, config.connections_max), (Duration::from_secs(10), 2));
        assert_eq!(config.dkim.unwrap().key, Path::new("/k.pem"));
    }

    #[test]
    fn the_way_to_the_relay_is_encrypted_unless_the_operator_says_otherwise() {
        for (lines, expected) in [
            ("relay = \"smtps://mail.example.com\"", Some(("mail.example.com", 465, Security::Tls))),
            ("relay = \"smtp://mail.example.com:2525/\"", Some(("mail.example.com", 2525, Security::StartTls))),
            ("relay = \"smtp://localhost\"\ntls = \"none\"", Some(("localhost", 25, Security::Nothing))),
            ("relay = \"smtps://[::1]\"", Some(("::1", 465, Security::Tls))),
            ("relay = \"smtps://bücher.example\"", Some(("xn--bcher-kva.example", 465, Security::Tls))),
            ("relay = \"smtps://mail.example.com\"\ntls = \"none\"", None),
            ("relay = \"smtp://mail.example.com\"\ntls = \"starttls\"", None),
            ("relay = \"mail.example.com\"", None),
            ("relay = \"https://mail.example.com\"", None),
            ("relay = \"smtp://\"", None),
            ("relay = \"smtp://a b\"", None),
            ("relay = \"smtp://mail.example.com/?tls=none\"", None),
        ] {
            let config = parse(&format!("[mail]\nfrom = \"a@example.com\"\n{lines}"));
            let relay = config.as_ref().ok().map(|config| &config.relay);
            let told = relay.map(|relay| (relay.host.as_str(), relay.port, relay.security));
            assert_eq!(told, expected, "{lines}: {config:?}");
        }
    }

    #[test]
    fn every_fault_is_told_with_its_line() {
        let head = "[mail]\nrelay = \"smtp://mail.example.com\"\nfrom = \"a@example.com\"\n";
        for (text, expected) in [
            ("[mail]\nfrom = \"a@example.com\"", "2: mail: relay is missing: write relay = \"smtps://"),
            ("[mail]\nrelay = \"smtp://a.example\"", "2: mail: from is missing: write from = "),
            ("[mail]\nrelay = \"smtp://u:hunter2@a.example\"", "2: mail.relay: a user does not belong into the URL"),
            ("[mail]\nfrom = \"shop\"", "2: mail.from: expected an address such as"),
            ("[mail]\nfrom = \"a@b.example\\r\\nBcc: c@d.example\"", "2: mail.from: expected an address such as"),
            (&format!("{head}username = \"u\""), "2: mail: username has no password: write [mail.password]"),
            (&format!("{head}[mail.password]\nenv = \"P\""), "2: mail: password has no username"),
            (&format!("{head}password = \"hunter2\""), "4: mail.password: expected a table, got a text"),
            (&format!("{head}timeout = \"0s\""), "4: mail.timeout: expected 1s to 5m, got 0s"),
            (&format!("{head}connections = 0"), "4: mail.connections: expected 1 to 64, got 0"),
            (&format!("{head}hello = \"a b\""), "4: mail.hello: expected the name that the host has in DNS"),
            (&format!("{head}port = 1"), "4: unknown key \"mail.port\""),
            (&format!("{head}[mail.dkim]\ndomain = \"a b\""), "5: mail.dkim.domain: expected a domain such as"),
            (&format!("{head}[mail.dkim]\ndomain = \"a.b\""), "5: mail.dkim: selector is missing"),
        ] {
            let error = parse(text).unwrap_err();
            let expected = format!("host.toml:{expected}");
            assert!(error.lines().any(|line| line.starts_with(&expected)), "{expected} in {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
