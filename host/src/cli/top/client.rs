//! Client of a host's HTTP API.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use event::text::shown;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use url::Url;

use crate::cli::api;
use crate::cli::top::snapshot::{Before, Snapshot};

/// Time limit of one request.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Time limit of an operation. A reload or pause may have to wait for the plugin.
const ACT_TIME_MAX: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Query that limits the events shown.
const EVENTS_QUERY: &str = "limit=50";
const TOKEN_BYTES_MAX: u64 = 4 << 10;

/// A client of one host.
#[derive(Clone)]
pub(crate) struct Client {
    http: HttpClient<HttpConnector, Full<bytes::Bytes>>,
    url: Url,
    authorization: Option<HeaderValue>,
}

/// An operation on a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Pause,
    Resume,
}

impl Act {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

impl Client {
    pub(crate) fn new(url: Url, token: Option<&str>) -> anyhow::Result<Self> {
        if url.scheme() != "http" || url.cannot_be_a_base() {
            bail!("--url {url}: a host speaks plain HTTP, so it begins with http://; from elsewhere, use a tunnel");
        }
        let authorization = match token {
            None => None,
            Some(token) => {
                let value = HeaderValue::try_from(format!("Bearer {token}"));
                let mut value = value.context("the token has characters that no header may have")?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Ok(Self { http, url, authorization })
    }

    /// Takes a snapshot of the host. Rates count from the snapshot before.
    pub(super) async fn look(&self, before: &mut Before) -> anyhow::Result<Snapshot> {
        let asked =
            tokio::try_join!(self.get(&["host"], None), self.get(&["stats"], None), self.get(&["plugins"], None));
        let (host, stats, plugins) = asked?;
        // Without a journal there are no events, but the rest is worth showing.
        let (events, no_events) = match self.get(&["events"], Some(EVENTS_QUERY)).await {
            Ok(events) => (events, None),
            Err(error) => (json!({ "events": [] }), Some(format!("{error:#}"))),
        };
        let snapshot = Snapshot::of(self.url.as_str(), [host, stats, plugins, events]);
        let url = &self.url;
        let mut snapshot = snapshot.map_err(|problem| anyhow::anyhow!("what answers at {url} (--url): {problem}"))?;
        snapshot.no_events = no_events;
        before.rate(&mut snapshot, Instant::now());
        Ok(snapshot)
    }

    /// Performs the operation and returns the host's answer.
    pub(super) async fn act(&self, act: Act, plugin: &str) -> anyhow::Result<String> {
        let answer = self.ask(Method::POST, &["plugins", plugin, act.word()], None, ACT_TIME_MAX).await?;
        Ok(answer["done"].as_str().unwrap_or("done").to_owned())
    }

    async fn get(&self, path: &[&str], query: Option<&str>) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, query, ANSWER_TIME_MAX).await
    }

    async fn ask(&self, method: Method, path: &[&str], query: Option<&str>, time: Duration) -> anyhow::Result<Value> {
        let base = &self.url;
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        url.set_query(query);
        let mut request = api::request(&method, url.as_str()).context("--url makes no request")?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let (status, answer) = self.exchange(request, time).await?;
        let said = answer.as_ref().and_then(|answer| answer["error"].as_str()).map(shown);
        match (status, said, answer) {
            (StatusCode::UNAUTHORIZED, said, _) => bail!(
                "the host at {base} does not let us in: {}; name the file with its token by --token-file",
                said.unwrap_or_else(|| "it wants its token".to_owned())
            ),
            (status, Some(said), _) if !status.is_success() => bail!("the host at {base} refuses: {said}"),
            (status, None, Some(answer)) if status.is_success() => Ok(answer),
            (status, ..) => bail!(
                "what answers at {base} is no notify-host of this version (status {}); name another address by --url",
                status.as_u16()
            ),
        }
    }
}

impl Client {
    /// Asks a probe's path. Returns whether all is well, and the host's answer.
    pub(crate) async fn probe(&self, path: &str) -> anyhow::Result<(bool, Value)> {
        let base = &self.url;
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(path);
        }
        let request = api::request(&Method::GET, url.as_str()).context("--url makes no request")?;
        let (status, answer) = self.exchange(request, ANSWER_TIME_MAX).await?;
        match answer {
            Some(answer) if status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE => {
                Ok((status.is_success(), answer))
            }
            _ => bail!(
                "what answers at {base} is no notify-host of this version (status {}); name another address by --url",
                status.as_u16()
            ),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<bytes::Bytes>>,
        time: Duration,
    ) -> anyhow::Result<(StatusCode, Option<Value>)> {
        let base = &self.url;
        let exchange = async {
            let answer = self.http.request(request).await.map_err(|error| unreachable(base, &root(&error)))?;
            api::read(answer, ANSWER_BYTES_MAX).await.map_err(|error| unreachable(base, &error.to_string()))
        };
        let silent = || unreachable(base, &format!("it did not answer within {} s", time.as_secs()));
        tokio::time::timeout(time, exchange).await.map_err(|_| silent())?
    }
}

fn unreachable(url: &Url, problem: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "cannot reach a host at {url}: {problem}; is it running, and does it listen there (its --admin)? name another \
         address by --url"
    )
}

fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Reads the token from a file.
pub(super) fn read_token(file: &Path) -> anyhow::Result<String> {
    let content = state::file::read_bounded(file, TOKEN_BYTES_MAX);
    let content = content.with_context(|| format!("cannot read the token from {} (--token-file)", file.display()))?;
    let token = String::from_utf8(content).unwrap_or_default().trim().to_owned();
    if token.is_empty() {
        bail!("there is no token in {} (--token-file)", file.display());
    }
    Ok(token)
}
