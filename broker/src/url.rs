//! The URL that selects a broker; one type for both engines.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

use crate::UrlError;

/// The checked location of a broker. Displays without passwords.
#[derive(Clone, PartialEq, Eq)]
pub enum BrokerUrl {
    /// `amqp://USER:PASSWORD@HOST:PORT/VHOST` or `amqps://…`; see
    /// <https://www.rabbitmq.com/docs/uri-spec>. Several URLs, separated by commas, are the
    /// nodes of one cluster. The list is never empty.
    Amqp(Vec<Url>),
    /// `sqlite:PATH`. The path is taken literally, relative to the working directory.
    Sqlite(PathBuf),
}

impl BrokerUrl {
    /// Returns the queue that host and order-cli share by default: a file in the user's state
    /// directory (`$XDG_STATE_HOME/notify-host/queue.db` on Linux), the same for every working
    /// directory. `None` if the user has no home directory.
    pub fn default_for_user() -> Option<Self> {
        use etcetera::BaseStrategy as _;
        let directories = etcetera::choose_base_strategy().ok()?;
        let state = directories.state_dir().unwrap_or_else(|| directories.data_dir());
        Some(Self::Sqlite(state.join("notify-host").join("queue.db")))
    }

    /// Joins several URLs into the nodes of one cluster; a single URL stays as it is. The error
    /// explains why the URLs do not belong together.
    pub fn together(urls: Vec<Self>) -> Result<Self, String> {
        let (mut nodes, mut files) = (Vec::new(), Vec::new());
        for url in urls {
            match url {
                Self::Amqp(urls) => nodes.extend(urls),
                Self::Sqlite(path) => files.push(path),
            }
        }
        match (nodes.is_empty(), files.pop()) {
            (false, None) => Ok(Self::Amqp(nodes)),
            (true, Some(path)) if files.is_empty() => Ok(Self::Sqlite(path)),
            (true, None) => Err("expected a broker URL, got an empty list".to_owned()),
            (_, Some(_)) => Err("several URLs are the nodes of one RabbitMQ cluster, and a file is none".to_owned()),
        }
    }
}

impl FromStr for BrokerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let wrong = |problem: String| UrlError { url: redact(text), problem };
        if let Some(path) = text.strip_prefix("sqlite:") {
            // Many tools write an absolute path as `sqlite:///var/lib/x.db`.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(wrong("the path is missing".to_owned()));
            }
            return Ok(Self::Sqlite(Path::new(path).to_owned()));
        }
        nodes(text).into_iter().map(node).collect::<Result<_, _>>().map(Self::Amqp)
    }
}

/// Splits a list of URLs. Only a comma before `amqp://` or `amqps://` separates two; any other
/// belongs to a URL, for example to its password.
fn nodes(text: &str) -> Vec<&str> {
    let (mut nodes, mut start) = (Vec::new(), 0);
    for (at, _) in text.match_indices(',') {
        let next = text[at + 1..].trim_start();
        if next.starts_with("amqp://") || next.starts_with("amqps://") {
            nodes.push(&text[start..at]);
            start = at + 1;
        }
    }
    nodes.push(&text[start..]);
    nodes.into_iter().map(|node| node.trim_matches([',', ' '])).collect()
}

fn node(text: &str) -> Result<Url, UrlError> {
    let wrong = |problem: String| UrlError { url: redact(text), problem };
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
    Ok(url)
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amqp(nodes) => {
                for (at, url) in nodes.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(f, "{comma}{}", redact(url.as_str()))?;
                }
                Ok(())
            }
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

/// Removes the password from a URL, even from one that does not parse.
fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    // Split at the last `@`, so that a password with an unescaped `@` does not show its tail.
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
            (
                "amqp://a:x,y@one,amqp://a:z@two:5673/%2F, amqps://three",
                "amqp://a:***@one,amqp://a:***@two:5673/%2F,amqps://three",
            ),
            ("amqp://one,, amqp://two,", "amqp://one,amqp://two"),
            ("sqlite:queue.db", "sqlite:queue.db"),
            ("sqlite:a,amqp://b", "sqlite:a,amqp://b"),
            ("sqlite:///var/lib/queue.db", "sqlite:/var/lib/queue.db"),
        ] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
        }
    }

    #[test]
    fn urls_together_are_the_nodes_of_one_cluster() {
        for (urls, expected) in [
            (&["amqp://a", "amqp://b,amqp://c"][..], Ok("amqp://a,amqp://b,amqp://c")),
            (&["sqlite:a"], Ok("sqlite:a")),
            (&["sqlite:a", "amqp://b"], Err("a file is none")),
            (&["sqlite:a", "sqlite:b"], Err("a file is none")),
            (&[], Err("empty list")),
        ] {
            let together = BrokerUrl::together(urls.iter().map(|url| url.parse().unwrap()).collect());
            match expected {
                Ok(shown) => assert_eq!(together.unwrap().to_string(), shown),
                Err(problem) => assert!(together.unwrap_err().contains(problem), "{urls:?}"),
            }
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
            ("amqp://u:hunter2@one,amqp://u:hunter2@two:x", "\"amqp://u:***@two:x\": invalid port"),
            ("sqlite:", "the path is missing"),
        ] {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
