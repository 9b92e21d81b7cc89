//! A plugin's secrets, `[secrets.NAME]` in its file: where each value comes from, and where it may be sent. The table
//! is the grant. The file never contains a value.

use std::fmt::{self, Display};
use std::ops::Range;
use std::path::PathBuf;

use crate::grants::{Capability, Grants, Scope};
use crate::origin::Origin;
use crate::reader::{Faults, Privacy, Table, key};
use crate::secret_name::name;

/// Maximum bytes of a variable's or credential's name. Names go into messages.
const NAME_BYTES_MAX: usize = 255;

/// One secret as the operator grants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretGrant {
    pub name: String,
    pub source: SecretSource,
    /// Origins that the secret may be sent to.
    pub to: Vec<Origin>,
    /// Whether the plugin may see the value itself.
    pub reveal: bool,
    /// Where the table is: `plugins/slack.toml:7`.
    pub place: String,
}

/// Source of a secret value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A variable of the host's environment.
    Env(String),
    File(PathBuf),
    /// One of the host's systemd credentials.
    Credential(String),
}

impl SecretSource {
    /// Parses a key of the table, or of `--secret NAME=KEY:VALUE`, and its value. The error says what was expected.
    pub fn new(key: &str, value: &str) -> Result<Self, String> {
        if value.is_empty() || value.contains('\0') {
            return Err(format!("it names nothing; {}", example(key)));
        }
        let is_short = value.len() <= NAME_BYTES_MAX;
        match key {
            "env" if is_short && !value.contains('=') => Ok(Self::Env(value.to_owned())),
            "env" => Err(format!("expected the name of a variable, such as \"SLACK_TOKEN\", got {value:?}")),
            "file" => Ok(Self::File(PathBuf::from(value))),
            "credential" if is_short && !value.contains('/') && value != "." && value != ".." => {
                Ok(Self::Credential(value.to_owned()))
            }
            "credential" => Err(format!("expected the name of a credential, such as \"slack-token\", got {value:?}")),
            // Do not repeat the key: it may be a secret value that was put in the wrong place.
            _ => Err("there is no such source; there are env, file and credential".to_owned()),
        }
    }

    /// Returns the key and its value as they stand in the table.
    pub fn entry(&self) -> (&'static str, String) {
        match self {
            Self::Env(name) => ("env", name.clone()),
            Self::File(path) => ("file", path.display().to_string()),
            Self::Credential(name) => ("credential", name.clone()),
        }
    }
}

impl Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Credential(name) => write!(f, "the systemd credential {name}"),
        }
    }
}

fn example(key: &str) -> String {
    match key {
        "file" => "such as file = \"/run/secrets/slack-token\"".to_owned(),
        "credential" => "such as credential = \"slack-token\"".to_owned(),
        _ => "such as env = \"SLACK_TOKEN\"".to_owned(),
    }
}

/// Reads `[secrets]`. A secret may only be sent to origins that the grants allow for HTTP.
pub(super) fn read(faults: &mut Faults<'_>, top: &mut Table<'_>, grants: &Grants) -> Vec<SecretGrant> {
    let granted: Vec<Origin> =
        grants.of(Capability::Http).filter_map(|scope: &Scope| scope.to_string().parse().ok()).collect();
    let secrets =
        key("secrets", "Values that the host fills in on the way out, by the names that the plugin knows them by")
            .private(Privacy::Whole);
    let tables = top.named_tables(faults, secrets);
    tables.into_iter().filter_map(|(key, at, table)| one(faults, (&key, at), table, &granted)).collect()
}

/// Reads the source of a value from a table. `path` and `at` say where the table is, for faults.
pub(super) fn source(
    faults: &mut Faults<'_>,
    table: &mut Table<'_>,
    path: &str,
    at: Range<usize>,
) -> Option<SecretSource> {
    let mut sources = Vec::new();
    let given = ["env", "file", "credential"].into_iter().filter(|key| table.has(key)).count();
    let env = key("env", "The variable of the host's environment that has it").example("SMTP_PASSWORD").instead();
    let credential = key("credential", "The host's systemd credential that has it").example("smtp-password").instead();
    let file = key("file", "The file that has it").example("/run/secrets/smtp-password");
    for key in [env, credential] {
        sources.extend(table.text_of(faults, key, |value| SecretSource::new(key.name, value)));
    }
    sources.extend(table.path_of(faults, file, |value| SecretSource::new("file", value)).map(SecretSource::File));
    match given {
        0 => faults.add(
            at,
            format!(
                "{path}: where its value comes from is missing: write env = \"VARIABLE\", file = \"PATH\" or \
                 credential = \"NAME\""
            ),
        ),
        1 => {}
        _ => faults.add(at, format!("{path}: expected one of env, file and credential, got {given} of them")),
    }
    sources.pop()
}

fn one(
    faults: &mut Faults<'_>,
    (own_name, at): (&str, Range<usize>),
    mut table: Table<'_>,
    granted: &[Origin],
) -> Option<SecretGrant> {
    let place = faults.place_of(at.start);
    let name = name(own_name).map_err(|problem| faults.add(at.clone(), format!("secrets: {problem}"))).ok();
    let source = source(faults, &mut table, &format!("secrets.{own_name}"), at);
    let to = key("to", "Where it may be sent, within grants.http")
        .otherwise("Wherever the plugin may send requests")
        .example("[\"https://hooks.example.com\"]");
    let reveal = key("reveal", "Whether the plugin may see the value itself").default("false");
    let to = table.list_of(faults, to, |text| {
        let origin: Origin = text.parse()?;
        if granted.iter().any(|granted| granted.covers(&origin)) {
            return Ok(origin);
        }
        Err(match granted {
            [] => format!("{origin} is not granted: write http = [\"{origin}\"] below [grants]"),
            granted => {
                let granted: Vec<_> = granted.iter().map(ToString::to_string).collect();
                format!("{origin} is not within grants.http, which has {}", granted.join(", "))
            }
        })
    });
    let reveal = table.boolean(faults, reveal).unwrap_or(false);
    table.finish(faults);
    Some(SecretGrant { name: name?, source: source?, to: to.unwrap_or_else(|| granted.to_vec()), reveal, place })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{PluginConfig, Policies};

    fn parse(text: &str) -> Result<Vec<SecretGrant>, String> {
        let config = PluginConfig::of_text(Path::new("plugins/slack.toml"), Some(text), &Policies::default());
        config.map(|config| config.secrets)
    }

    #[test]
    fn a_secret_says_where_it_comes_from_and_where_it_may_go() {
        let secrets = parse(
            "[grants]\nhttp = [\"https://hooks.slack.com\", \"https://*.example.com\"]\n\n[secrets.slack-token]\nenv = \"T\"\n\
             [secrets.a]\nfile = \"a.txt\"\nto = [\"https://x.example.com\"]\nreveal = true\n[secrets.\"b.c\"]\nfile = \"/b\"\n\
             [secrets.d]\ncredential = \"d\"\nto = []\n",
        )
        .unwrap();
        let told: Vec<_> = secrets
            .iter()
            .map(|secret| {
                let to: Vec<_> = secret.to.iter().map(ToString::to_string).collect();
                format!("{} {} {} {} {}", secret.place, secret.name, secret.source, to.join(" "), secret.reveal)
            })
            .collect();
        assert_eq!(
            told,
            [
                "plugins/slack.toml:6 a the file plugins/a.txt https://x.example.com true",
                "plugins/slack.toml:10 b.c the file /b https://hooks.slack.com https://*.example.com false",
                "plugins/slack.toml:12 d the systemd credential d  false",
                "plugins/slack.toml:4 slack-token the environment variable T https://hooks.slack.com \
                 https://*.example.com false",
            ]
        );
        assert!(parse("[secrets.signing]\nenv = \"S\"").unwrap()[0].to.is_empty(), "nowhere, without grants of HTTP");
    }

    #[test]
    fn every_fault_of_a_secret_is_told_with_its_line() {
        let head = "[grants]\nhttp = [\"https://a.example\"]\n[secrets.token]\n";
        for (text, expected) in [
            ("", "3: secrets.token: where its value comes from is missing: write env = \"VARIABLE\", file"),
            ("env = \"A\"\nfile = \"b\"", "3: secrets.token: expected one of env, file and credential, got 2 of them"),
            ("env = \"\"", "4: secrets.token.env: it names nothing; such as env = "),
            ("env = \"A=B\"", "4: secrets.token.env: expected the name of a variable"),
            ("env = 5", "4: secrets.token.env: expected a text in quotes, got a number"),
            ("credential = \"../etc/passwd\"", "4: secrets.token.credential: expected the name of a credential"),
            ("enf = \"A\"", "4: unknown key \"secrets.token.enf\"; did you mean \"env\"?"),
            ("env = \"A\"\nreveal = 1", "5: secrets.token.reveal: expected true or false"),
            (
                "env = \"A\"\nto = [\"https://b.example\"]",
                "5: secrets.token.to: https://b.example is not within grants.http, which has https://a.example",
            ),
            ("env = \"A\"\nto = [\"https://a.example/path\"]", "5: secrets.token.to: expected scheme, host and"),
            ("env = \"A\"\n[secrets.\"a b\"]\nenv = \"A\"", "5: secrets: expected a secret's name, made of a-z"),
        ] {
            let error = parse(&format!("{head}{text}\n")).unwrap_err();
            let expected = format!("plugins/slack.toml:{expected}");
            assert!(error.lines().any(|line| line.starts_with(&expected)), "{expected} in {error}");
        }
        for (text, expected) in [
            (
                "[grants]\nsecret = [\"slack-token\"]",
                "2: grants.secret: each secret has a table of its own now, which says where its value comes from: instead \
                 of this write [secrets.slack-token] and below it env = \"VARIABLE\", file = \"PATH\" or credential = \
                 \"NAME\"",
            ),
            ("[grants]\nsecret = []", "2: grants.secret: each secret has a table"),
            ("secrets = 1", "1: secrets: expected a table, got a number"),
            ("[secrets]\ntoken = \"abc\"", "2: secrets.token: expected a table"),
            (
                "[secrets.a]\nenv = \"A\"\nto = [\"https://a.example\"]",
                "3: secrets.a.to: https://a.example is not granted: write http = [\"https://a.example\"] below [grants]",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(&format!("plugins/slack.toml:{expected}")), "{error}");
        }
        let error = parse("[secrets]\ntoken = \"hunter2\"").unwrap_err();
        assert!(!error.contains("hunter2"), "a value that stands where it should not is not repeated: {error}");
    }
}
