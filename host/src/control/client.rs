//! A command's end of the control sockets.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::control::{Answer, Request, sockets};
use crate::plugin::COMPILE_TIME_MAX;

/// For the answer. The plugin that is to be loaded may have to be compiled, and wait for another's turn.
const ANSWER_TIME_MAX: Duration = COMPILE_TIME_MAX.saturating_mul(2);
/// Of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The hosts that run for one plugin folder.
#[derive(Debug)]
pub(crate) struct Hosts {
    streams: Vec<UnixStream>,
}

impl Hosts {
    /// Finds them; `state` is what belongs to the plugin folder in the state folder.
    pub(crate) async fn find(state: &Path) -> Self {
        let mut streams = Vec::new();
        for path in socket_files(&sockets(state)) {
            match UnixStream::connect(&path).await {
                Ok(stream) => streams.push(stream),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    // Left by a host that was killed.
                    let _ = fs::remove_file(&path);
                }
                // It has just gone, or belongs to somebody else.
                Err(_) => {}
            }
        }
        Self { streams }
    }

    pub(crate) fn count(&self) -> usize {
        self.streams.len()
    }

    /// Asks each of them.
    pub(crate) async fn ask(self, request: &Request) -> anyhow::Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for stream in self.streams {
            let answer = tokio::time::timeout(ANSWER_TIME_MAX, exchange(stream, request)).await;
            let answer = answer
                .with_context(|| format!("the host did not answer within {} min", ANSWER_TIME_MAX.as_secs() / 60));
            answers.push(answer??);
        }
        Ok(answers)
    }
}

/// Asks every host that runs for the plugin folder; there must be one.
pub(crate) async fn ask(state: &Path, plugins: &Path, request: &Request) -> anyhow::Result<Vec<Answer>> {
    let hosts = Hosts::find(state).await;
    if hosts.count() == 0 {
        let plugins = plugins.display();
        bail!(
            "no host of yours runs with the plugin folder {plugins}: start one, or name its folder by --plugins (and --state, if it has one)"
        );
    }
    hosts.ask(request).await
}

async fn exchange(mut stream: UnixStream, request: &Request) -> anyhow::Result<Answer> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let gone = "the host went away while it was asked";
    stream.write_all(&line).await.context(gone)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.context(gone)?;
    if answer.is_empty() {
        bail!(gone);
    }
    serde_json::from_slice(&answer).context("the host's answer makes no sense; is it of another version?")
}

fn socket_files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect();
    files.sort();
    files
}
