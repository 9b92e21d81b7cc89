//! The dead-letter service performs an operator's requests on dead letters, one at a time.
//!
//! It opens a session with the broker for the first request and closes it after a while without requests.
//! Between requests it holds no letters.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::{Broker, BrokerUrl, Message};
use config::HostConfig;
use delivery::{raw_properties, raw_properties_sha256};
use event::clock::now;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::Instant;
use uuid::Uuid;

use crate::browse::{Browser, Letter, Need};
use crate::edited_event::Original;
use crate::json::{as_plain_json, foreign_headers, properties_as_json};
use crate::letter::Summary;
use crate::replay::{self, Tally};
use crate::select::Selection;
use crate::session::{connect, within_time};
use crate::the_one;

/// How long an unused session stays open.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Maximum number of requests that wait for the one being served.
const WAITING_MAX: usize = 8;

pub struct DeadLetterService {
    config: Arc<HostConfig>,
    url: BrokerUrl,
    session: Mutex<Option<Session>>,
    waiting: Semaphore,
}

struct Session {
    broker: Broker,
    used: Instant,
}

/// The reason a request failed.
#[derive(Debug)]
pub enum DeadLetterError {
    /// There is no such letter.
    Unknown(String),
    /// The letter does not allow this, or not in this form.
    Refused(String),
    /// Too many requests are waiting.
    Busy,
    /// The broker failed.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for DeadLetterError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// The result of a change to several letters.
#[derive(Debug, Default)]
pub struct Changed {
    pub count: usize,
    /// Letters that stay in the queue, each with its id and the reason.
    pub stayed: Vec<(String, String)>,
}

impl DeadLetterService {
    pub fn new(config: Arc<HostConfig>, url: BrokerUrl) -> Self {
        Self { config, url, session: Mutex::default(), waiting: Semaphore::new(WAITING_MAX) }
    }

    /// Returns the number of matching letters, and up to `limit` of them, newest death first.
    pub async fn list(&self, selection: &Selection, limit: usize) -> Result<(usize, Vec<Value>), DeadLetterError> {
        let mut turn = self.turn().await?;
        let Some((browser, letters)) = self.find(&mut turn, selection, Need::Summary).await? else {
            return Ok((0, Vec::new()));
        };
        let listed = (letters.len(), letters.iter().rev().take(limit).map(|letter| json!(letter.summary)).collect());
        drop(letters);
        done(&mut turn, browser.put_back(0).await)?;
        Ok(listed)
    }

    /// Returns everything known about one letter, with its content and the part that an edit may change.
    pub async fn show(&self, id: &str) -> Result<Value, DeadLetterError> {
        let mut turn = self.turn().await?;
        let (browser, letter) = self.find_one(&mut turn, id, Need::Message).await?;
        let mut shown = as_json(&letter.summary, &letter.message);
        let original = Original {
            delivery_headers: &letter.delivery_headers,
            message: &letter.message,
            rules: &self.config.rules,
        };
        if let Ok(text) = original.text() {
            shown["editable"] = json!(text);
        }
        drop(letter);
        done(&mut turn, browser.put_back(0).await)?;
        Ok(shown)
    }

    /// Replays one letter to the plugin that failed. With `text`, edits it first, as `dead-letters edit` does.
    pub async fn replay_one(&self, id: &str, text: Option<&str>) -> Result<(), DeadLetterError> {
        let mut turn = self.turn().await?;
        let (browser, letter) = self.find_one(&mut turn, id, Need::Message).await?;
        let Some(text) = text else {
            let tally = replay::all(&browser.broker, &self.config, vec![letter], |_, _| {}).await;
            let Tally { done: count, stayed, lost } = tally;
            done(&mut turn, lost.map_or(Ok(()), Err).and(browser.put_back(count).await))?;
            return stayed.into_iter().next().map_or(Ok(()), |(_, reason)| Err(DeadLetterError::Refused(reason)));
        };
        let original = Original {
            delivery_headers: &letter.delivery_headers,
            message: &letter.message,
            rules: &self.config.rules,
        };
        let edited = match original.succeed(text.trim(), &Uuid::now_v7().to_string(), now()) {
            Ok(edited) => edited,
            Err(problem) => {
                drop(letter);
                done(&mut turn, browser.put_back(0).await)?;
                return Err(DeadLetterError::Refused(format!("{problem}; the letter stays as it is")));
            }
        };
        let replayed = replay::one(&browser.broker, &self.config, &edited.delivery_headers, &edited.message).await;
        if replayed.is_ok() {
            letter.remove();
        }
        let removed = usize::from(replayed.is_ok());
        done(&mut turn, replayed.and(browser.put_back(removed).await))
    }

    pub async fn remove_one(&self, id: &str) -> Result<(), DeadLetterError> {
        let mut turn = self.turn().await?;
        let (browser, letter) = self.find_one(&mut turn, id, Need::Summary).await?;
        letter.remove();
        done(&mut turn, browser.put_back(1).await)
    }

    pub async fn replay(&self, selection: &Selection) -> Result<Changed, DeadLetterError> {
        let mut turn = self.turn().await?;
        let Some((browser, letters)) = self.find(&mut turn, selection, Need::Message).await? else {
            return Ok(Changed::default());
        };
        let tally = replay::all(&browser.broker, &self.config, letters, |_, _| {}).await;
        let Tally { done: count, stayed, lost } = tally;
        done(&mut turn, lost.map_or(Ok(()), Err).and(browser.put_back(count).await))?;
        Ok(Changed { count, stayed })
    }

    pub async fn purge(&self, selection: &Selection) -> Result<Changed, DeadLetterError> {
        let mut turn = self.turn().await?;
        let Some((browser, letters)) = self.find(&mut turn, selection, Need::Summary).await? else {
            return Ok(Changed::default());
        };
        let count = letters.len();
        letters.into_iter().for_each(Letter::remove);
        done(&mut turn, browser.put_back(count).await)?;
        Ok(Changed { count, stayed: Vec::new() })
    }

    /// Closes the session whenever it has been unused for a while. Runs for as long as it is polled.
    pub async fn tidy(&self) {
        loop {
            tokio::time::sleep(IDLE_MAX / 3).await;
            let Ok(mut session) = self.session.try_lock() else { continue };
            if let Some(idle) = session.take_if(|session| session.used.elapsed() > IDLE_MAX) {
                idle.broker.close().await;
            }
        }
    }

    /// Waits for exclusive use of the session. Letters held by one request would be invisible to another.
    async fn turn(&self) -> Result<MutexGuard<'_, Option<Session>>, DeadLetterError> {
        let _waiting = self.waiting.try_acquire().map_err(|_| DeadLetterError::Busy)?;
        Ok(self.session.lock().await)
    }

    /// Finds letters over the open session, or over a new one. Returns `None` if there is no dead-letter queue,
    /// and so no letter.
    async fn find(
        &self,
        turn: &mut MutexGuard<'_, Option<Session>>,
        selection: &Selection,
        need: Need,
    ) -> Result<Option<(Browser, Vec<Letter>)>, DeadLetterError> {
        let names = &self.config.source.names;
        // The open session may have been lost since its last use. Only a request to the broker shows that.
        if let Some(session) = turn.as_mut() {
            if within_time(session.broker.inspect(&names.dead())).await.is_ok() {
                session.used = Instant::now();
            } else {
                **turn = None;
            }
        }
        let broker = if let Some(session) = turn.as_ref() {
            session.broker.clone()
        } else {
            let broker = connect(&self.url, "admin").await.map_err(anyhow::Error::from)?;
            **turn = Some(Session { broker: broker.clone(), used: Instant::now() });
            broker
        };
        let found = Browser::look(broker, names, selection, need).await;
        // Ending the session returns the held letters to the queue.
        if found.is_err()
            && let Some(session) = turn.take()
        {
            session.broker.close().await;
        }
        Ok(found?)
    }

    async fn find_one(
        &self,
        turn: &mut MutexGuard<'_, Option<Session>>,
        id: &str,
        need: Need,
    ) -> Result<(Browser, Letter), DeadLetterError> {
        let unknown = || DeadLetterError::Unknown(format!("there is no dead letter {id:?} (any more)"));
        let Some((browser, letters)) = self.find(turn, &Selection::of_id(id), need).await? else {
            return Err(unknown());
        };
        let problem = match the_one(letters, id) {
            Ok(Some(letter)) => return Ok((browser, letter)),
            Ok(None) => unknown(),
            Err(problem) => DeadLetterError::Refused(problem),
        };
        done(turn, browser.put_back(0).await)?;
        Err(problem)
    }
}

/// Drops the session after a failure, so that it is not used again.
fn done(turn: &mut MutexGuard<'_, Option<Session>>, done: anyhow::Result<()>) -> Result<(), DeadLetterError> {
    if done.is_err() {
        **turn = None;
    }
    Ok(done?)
}

/// Formats a letter. The body is `body` if it is text, `body_base64` otherwise.
fn as_json(summary: &Summary, message: &Message) -> Value {
    let mut json = json!(summary);
    let headers: Map<_, _> =
        foreign_headers(message).map(|(name, value)| (name.clone(), as_plain_json(value))).collect();
    json["properties"] = properties_as_json(message);
    json["headers"] = Value::Object(headers);
    if let Some(raw) = raw_properties(message) {
        json["raw_properties_base64"] = json!(STANDARD.encode(raw));
    }
    if let Some(digest) = raw_properties_sha256(message) {
        json["raw_properties_sha256"] = json!(digest);
    }
    match std::str::from_utf8(&message.body) {
        Ok(text) => json["body"] = json!(text),
        Err(_) => json["body_base64"] = json!(STANDARD.encode(&message.body)),
    }
    json
}
