//! Asks the running hosts of a plugin folder, each over its control socket.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use futures_util::future::join_all;
use http::header::{HOST, HeaderValue};
use http::{Method, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sandbox::COMPILE_TIME_MAX;
use serde::de::DeserializeOwned;
use serde_json::Value;
use supervisor::control::connect;
use tokio::net::UnixStream;

use crate::cli::api;

/// Time limit of an answer that the host has at hand.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Time limit of the answer to a reload. The plugin may have to be compiled, and wait for another one first.
const RELOAD_TIME_MAX: Duration = COMPILE_TIME_MAX.saturating_mul(2);
/// Maximum bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The running hosts of one plugin folder.
pub(super) struct Hosts {
    streams: Vec<UnixStream>,
}

/// Why a host did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `None` if there was no answer.
    pub(super) status: Option<StatusCode>,
    pub(super) sentence: String,
}

impl Refusal {
    fn without_answer(sentence: impl Into<String>) -> Self {
        Self { status: None, sentence: sentence.into() }
    }
}

impl Hosts {
    /// Finds the hosts. `state` is the state folder of the plugin folder.
    pub(super) async fn find(state: &Path) -> Self {
        Self { streams: connect(state).await }
    }

    /// Like `find`, and fails if there is none.
    pub(super) async fn find_some(state: &Path, plugins: &Path) -> anyhow::Result<Self> {
        let hosts = Self::find(state).await;
        if hosts.count() == 0 {
            let plugins = plugins.display();
            bail!(
                "no host of yours runs with the plugin folder {plugins}: start one, or name its folder by --plugins (and --state, if it has one)"
            );
        }
        Ok(hosts)
    }

    pub(super) fn count(&self) -> usize {
        self.streams.len()
    }

    /// Asks all hosts at once, so that none waits for another. `path` is below `/api/v1/`.
    pub(super) async fn ask<T: DeserializeOwned>(self, method: Method, path: &str) -> Vec<Result<T, Refusal>> {
        let time_max = if path.ends_with("reload") { RELOAD_TIME_MAX } else { ANSWER_TIME_MAX };
        let path = format!("/api/v1/{path}");
        let ask = async |stream| {
            let answer = tokio::time::timeout(time_max, exchange(stream, &method, &path)).await;
            let silent = |_| Refusal::without_answer(format!("a host did not answer within {} s", time_max.as_secs()));
            let (status, answer) = answer.map_err(silent)??;
            if status.is_success()
                && let Ok(answer) = T::deserialize(&answer)
            {
                return Ok(answer);
            }
            Err(match answer["error"].as_str() {
                Some(sentence) => Refusal { status: Some(status), sentence: sentence.to_owned() },
                None => Refusal::without_answer("a host's answer makes no sense; is it of another version?"),
            })
        };
        join_all(self.streams.into_iter().map(ask)).await
    }
}

async fn exchange(stream: UnixStream, method: &Method, path: &str) -> Result<(StatusCode, Value), Refusal> {
    let gone = || Refusal::without_answer("a host went away while it was asked");
    let mut request = api::request(method, path).map_err(|error| Refusal::without_answer(error.to_string()))?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| gone())?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|error| {
            if error.is_parse() {
                // Hosts once spoke JSON lines on their sockets.
                return Refusal::without_answer(
                    "a host of an older version does not understand this command: restart it",
                );
            }
            gone()
        })?;
        let (status, answer) = api::read(answer, ANSWER_BYTES_MAX).await.map_err(|_| gone())?;
        Ok((status, answer.unwrap_or_default()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The end of the connection lets the exchange end: its answer is complete, or there is none.
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::UnixListener;

    use super::*;

    async fn take(listener: UnixListener) -> UnixStream {
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
        }
        stream.into_inner()
    }

    async fn answer(mut stream: UnixStream, sentence: &str) {
        let body = format!("{{\"done\":\"{sentence}\"}}");
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    async fn check<const HOSTS: usize>(
        hosts: impl AsyncFnOnce([UnixListener; HOSTS]),
        expected: [Result<&str, &str>; HOSTS],
    ) {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("hosts");
        fs::create_dir(&folder).unwrap();
        let listeners = std::array::from_fn(|at| UnixListener::bind(folder.join(format!("{at}.sock"))).unwrap());
        let found = Hosts::find(state.path()).await;
        let asked = async { tokio::join!(found.ask::<Value>(Method::GET, "plugins"), hosts(listeners)).0 };
        let answers =
            tokio::time::timeout(Duration::from_secs(30), asked).await.expect("nobody waits for the slow one");
        let expected = expected.map(|expected| match expected {
            Ok(sentence) => Ok(json!({ "done": sentence })),
            Err(sentence) => Err(Refusal::without_answer(sentence)),
        });
        assert_eq!(answers, expected);
    }

    #[tokio::test]
    async fn no_host_keeps_another_from_its_request_and_each_has_its_own_answer() {
        let hosts = async |[slow, quick, dying]: [UnixListener; 3]| {
            // The first host answers only after all have been asked.
            let first = take(slow).await;
            answer(take(quick).await, "quick").await;
            drop(take(dying).await);
            answer(first, "slow").await;
        };
        check(hosts, [Ok("slow"), Ok("quick"), Err("a host went away while it was asked")]).await;
    }

    #[tokio::test]
    async fn a_host_that_speaks_json_lines_is_said_to_be_old() {
        let host = async |[old]: [UnixListener; 1]| {
            let answer =
                b"{\"Err\":\"this host does not understand the command (expected value at line 1 column 1)\"}\n";
            take(old).await.write_all(answer).await.unwrap();
        };
        check(host, [Err("a host of an older version does not understand this command: restart it")]).await;
    }
}
