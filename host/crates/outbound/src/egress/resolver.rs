//! The resolver turns a host's name into addresses. It is asked once for each connection, and what it answers is what
//! is checked and dialled.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Further answers are not looked at.
const ANSWERS_MAX: usize = 16;
/// Names of one plugin that are looked up at once: the system's resolver takes a thread for each, for as long as it
/// likes.
const LOOKUPS_AT_ONCE_MAX: usize = 8;

/// Where answers come from.
#[derive(Clone, Debug, Default)]
pub enum Resolver {
    /// The system, with all that it is configured to ask.
    #[default]
    System,
    #[cfg(test)]
    Scripted(Script),
}

/// The lookups of one plugin.
#[derive(Clone, Debug)]
pub(super) struct Lookups(Arc<Semaphore>);

impl Default for Lookups {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS_AT_ONCE_MAX)))
    }
}

impl Resolver {
    /// All addresses of this name, in the system's order. Whoever calls bounds the time.
    pub(super) async fn resolve(&self, name: &str, lookups: &Lookups) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::System => {
                let name = name.to_owned();
                // Given back when the lookup has ended for good, and not when nobody waits for it any more.
                let permit = Arc::clone(&lookups.0).acquire_owned().await.map_err(io::Error::other)?;
                let lookup = move || {
                    let _permit = permit;
                    let answers = (name.as_str(), 0).to_socket_addrs()?;
                    Ok(answers.map(|answer| answer.ip()).take(ANSWERS_MAX).collect())
                };
                tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
            }
            #[cfg(test)]
            Self::Scripted(script) => script.answer(name).await,
        }
    }
}

/// Answers for tests: to each question the next list, and the last one from then on.
#[cfg(test)]
#[derive(Clone, Debug)]
pub struct Script {
    answers: Arc<std::sync::Mutex<std::collections::VecDeque<Vec<IpAddr>>>>,
    asked: Arc<std::sync::Mutex<Vec<String>>>,
}

#[cfg(test)]
impl Script {
    pub(crate) fn new(answers: &[&[&str]]) -> Self {
        let addresses = |one: &&[&str]| one.iter().map(|address| address.parse().unwrap()).collect();
        Self {
            answers: Arc::new(std::sync::Mutex::new(answers.iter().map(addresses).collect())),
            asked: Arc::default(),
        }
    }

    /// The names that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn answer(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(name.to_owned());
        let next = {
            let mut answers = self.answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
        };
        match next {
            Some(answer) => Ok(answer.into_iter().take(ANSWERS_MAX).collect()),
            // One that never answers.
            None => std::future::pending().await,
        }
    }
}
