//! The command's end of the control sockets.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::future::join_all;
use sandbox::COMPILE_TIME_MAX;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::control::socket::SocketFolder;
use crate::control::{Answer, Request, sockets};

/// Time limit of an answer that the host has at hand.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Time limit of the answer to a reload. The plugin may have to be compiled, and wait for another one first.
const RELOAD_TIME_MAX: Duration = COMPILE_TIME_MAX.saturating_mul(2);
/// Maximum bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The running hosts of one plugin folder.
#[derive(Debug)]
pub struct Hosts {
    streams: Vec<UnixStream>,
}

impl Hosts {
    /// Finds the hosts. `state` is the state folder of the plugin folder.
    pub async fn find(state: &Path) -> Self {
        // The folder does not exist if no host has ever run.
        let streams = match SocketFolder::open(sockets(state)) {
            Ok(folder) => folder.connect().await,
            Err(_) => Vec::new(),
        };
        Self { streams }
    }

    pub fn count(&self) -> usize {
        self.streams.len()
    }

    /// Asks all hosts at once, so that none waits for another. For a host that does not answer, the answer is
    /// an error that says so.
    pub async fn ask(self, request: &Request) -> Vec<Answer> {
        let time_max = match request {
            Request::List | Request::Pause { .. } | Request::Resume { .. } => ANSWER_TIME_MAX,
            Request::Reload { .. } | Request::ReloadSettings => RELOAD_TIME_MAX,
        };
        let ask = async |stream| {
            let answer = tokio::time::timeout(time_max, exchange(stream, request)).await;
            let silent = |_| Err(format!("a host did not answer within {} s", time_max.as_secs()));
            answer.map_or_else(silent, |answer| answer.unwrap_or_else(|error| Err(format!("{error:#}"))))
        };
        join_all(self.streams.into_iter().map(ask)).await
    }
}

/// Asks every running host of the plugin folder. Fails if there is none.
pub async fn ask(state: &Path, plugins: &Path, request: &Request) -> anyhow::Result<Vec<Answer>> {
    let hosts = Hosts::find(state).await;
    if hosts.count() == 0 {
        let plugins = plugins.display();
        bail!(
            "no host of yours runs with the plugin folder {plugins}: start one, or name its folder by --plugins (and --state, if it has one)"
        );
    }
    Ok(hosts.ask(request).await)
}

async fn exchange(mut stream: UnixStream, request: &Request) -> anyhow::Result<Answer> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let gone = "a host went away while it was asked";
    stream.write_all(&line).await.context(gone)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.context(gone)?;
    if answer.is_empty() {
        bail!(gone);
    }
    serde_json::from_slice(&answer).context("a host's answer makes no sense; is it of another version?")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::UnixListener;

    use super::*;
    use crate::control::Reply;

    #[tokio::test]
    async fn no_host_keeps_another_from_its_request_and_each_has_its_own_answer() {
        let state = tempfile::tempdir().unwrap();
        let folder = sockets(state.path());
        fs::create_dir(&folder).unwrap();
        let [slow, quick, dying] =
            ["1.sock", "2.sock", "3.sock"].map(|name| UnixListener::bind(folder.join(name)).unwrap());
        let take = async |listener: UnixListener| {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            stream.read_line(&mut String::new()).await.unwrap();
            stream.into_inner()
        };
        let answer = async |mut stream: UnixStream, sentence: &str| {
            let answer: Answer = Ok(Reply::Done(sentence.to_owned()));
            stream.write_all(&serde_json::to_vec(&answer).unwrap()).await.unwrap();
        };
        let hosts = async {
            // The first host answers only after all have been asked.
            let first = take(slow).await;
            answer(take(quick).await, "quick").await;
            drop(take(dying).await);
            answer(first, "slow").await;
        };
        let found = Hosts::find(state.path()).await;
        let asked = async { tokio::join!(found.ask(&Request::List), hosts).0 };
        let answers =
            tokio::time::timeout(Duration::from_secs(30), asked).await.expect("nobody waits for the slow one");
        let done = |sentence: &str| Ok(Reply::Done(sentence.to_owned()));
        assert_eq!(answers, [done("slow"), done("quick"), Err("a host went away while it was asked".to_owned())]);
    }
}
