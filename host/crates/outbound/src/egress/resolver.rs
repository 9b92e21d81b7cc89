//! The resolver turns a host name into addresses. It is asked once per connection, and exactly its answer is checked
//! and dialled.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Maximum number of addresses used from one answer.
const ANSWERS_MAX: usize = 16;
/// Maximum number of concurrent lookups of one plugin. The system's resolver takes a thread for each, for as long as
/// it likes.
const LOOKUPS_AT_ONCE_MAX: usize = 8;

/// The source of addresses.
#[derive(Clone, Debug, Default)]
pub enum Resolver {
    /// The system's resolver, as it is configured.
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
    /// Returns all addresses of this name, in the system's order. The caller limits the time.
    pub(super) async fn resolve(&self, name: &str, lookups: &Lookups) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::System => {
                let name = name.to_owned();
                // Held by the lookup itself, because an abandoned lookup still occupies its thread.
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

/// Answers for tests: each question gets the next list, and the last list repeats.
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

    /// Returns the names that were asked for.
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
            // An empty script never answers.
            None => std::future::pending().await,
        }
    }
}
