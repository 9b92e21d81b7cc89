//! Which broker: one URL for both engines.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

use crate::UrlError;

/// A broker's URL, checked. Shows without its password.
#[derive(Clone, PartialEq, Eq)]
pub enum BrokerUrl {
    /// `amqp://USER:PASSWORD@HOST:PORT/VHOST` or `amqps://…`; see
    /// <https://www.rabbitmq.com/docs/uri-spec>.
    Amqp(Url),
    /// `sqlite:PATH`, the path taken as it stands, relative to the working directory.
    Sqlite(PathBuf),
}

impl BrokerUrl {
    /// The queue that the host and order-cli share when nobody names one: a file in the user's
    /// state directory (`$XDG_STATE_HOME/notify-host/queue.db` on Linux), the same from whatever
    /// directory they start. `None` when the user has no home directory.
    pub fn default_for_user() -> Option<Self> {
        use etcetera::BaseStrategy as _;
        let directories = etcetera::choose_base_strategy().ok()?;
        let state = directories.state_dir().unwrap_or_else(|| directories.data_dir());
        Some(Self::Sqlite(state.join("notify-host").join("queue.db")))
    }
}

impl FromStr for BrokerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let wrong = |problem: String| UrlError { url: redact(text), problem };
        if let Some(path) = text.strip_prefix("sqlite:") {
            // `sqlite:///var/lib/x.db` is how many tools write an absolute path.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(wrong("the path is missing".to_owned()));
            }
            return Ok(Self::Sqlite(Path::new(path).to_owned()));
        }
        let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
        match url.scheme() {
            "amqp" | "amqps" => {}
            other => return Err(wrong(format!("unknown scheme {other:?}"))),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("the host is missing".to_owned()));
        }
        if url.path_segments().is_some_and(|segments| segments.count() > 1) {
            return Err(wrong("the virtual host has a \"/\" in it: write it as %2F".to_owned()));
        }
        Ok(Self::Amqp(url))
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amqp(url) => f.write_str(&redact(url.as_str())),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

/// Takes the password out of a URL, even of one that does not parse.
fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    // The last `@`: a password with an unescaped one in it must not show its tail.
    let Some((login, place)) = rest.rsplit_once('@') else { return text.to_owned() };
    let user = login.split(':').next().unwrap_or_default();
    let password = if login.contains(':') { ":***" } else { "" };
    format!("{scheme}://{user}{password}@{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_parse_and_show_without_their_password() {
        for (text, shown) in [
            ("amqp://localhost", "amqp://localhost"),
            ("amqp://guest:guest@127.0.0.1:5672/%2F", "amqp://guest:***@127.0.0.1:5672/%2F"),
            ("amqps://me:p%40ss@mq.example.com/prod?heartbeat=10", "amqps://me:***@mq.example.com/prod?heartbeat=10"),
            ("sqlite:queue.db", "sqlite:queue.db"),
            ("sqlite:///var/lib/queue.db", "sqlite:/var/lib/queue.db"),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn a_wrong_url_says_what_is_wrong_and_keeps_the_password_to_itself() {
        for (text, problem) in [
            ("", "relative URL without a base"),
            ("localhost:5672", "unknown scheme \"localhost\""),
            ("http://u:hunter2@localhost", "unknown scheme \"http\""),
            ("amqp://", "host"),
            ("amqp://u:hunter2@h@x:70000/", "invalid port"),
            ("amqp://u:hunter2@localhost//", "%2F"),
            ("sqlite:", "the path is missing"),
        ] {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
