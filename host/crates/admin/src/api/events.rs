//! `/events` and `/explain`: the history of events from the journal, as `notify-host events` and `notify-host explain`
//! show it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use config::parse_duration;
use event::clock::now;
use futures_util::stream::{self, StreamExt as _};
use http::StatusCode;
use jiff::Timestamp;
use journal::json::event_line;
use journal::{Filter, OutcomeFilter};
use journal::{Reader, Record, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};
use state::file::apart;

use crate::Admin;
use crate::api::asked::QueryParams;
use crate::follower::NewRecords;
use crate::refusal::Refusal;
use crate::streams::heard;

/// Default and maximum number of records in an answer.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// Time limit of one search through the journal.
const LOOK_TIME_MAX: Duration = Duration::from_secs(5);
/// Number of extra chunks that are searched for subjects once there are enough records.
const CHUNKS_BEYOND: usize = 1;
/// Maximum number of new records that a stream sends per poll. It reports how many it left out.
const NEWS_MAX: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    plugin: Option<String>,
    /// Outcomes, separated by commas.
    outcome: Option<String>,
    since: Option<String>,
    until: Option<String>,
    id: Option<String>,
    subject: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    id: Option<String>,
    subject: Option<String>,
}

/// A parsed query.
struct Wanted {
    filter: Filter,
    id: Option<String>,
    subject: Option<String>,
    /// Milliseconds since 1970.
    since: i64,
    until: i64,
    limit: usize,
}

impl EventsQuery {
    fn read(self, now: i64) -> Result<Wanted, Refusal> {
        // The dashboard sends empty strings for fields that are not filled in.
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let outcomes = given(self.outcome).unwrap_or_default();
        let outcome = outcomes
            .split(',')
            .filter(|word| !word.is_empty())
            .map(|word| word.parse::<OutcomeFilter>().map_err(|unknown| Refusal::bad_request(unknown.to_string())));
        let time = |name: &str, text: Option<String>| {
            let Some(text) = given(text) else { return Ok(None) };
            match (text.parse::<Timestamp>(), parse_duration(&text)) {
                (Ok(time), _) => Ok(Some(time.as_millisecond())),
                (_, Ok(ago)) => Ok(Some(now.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))),
                _ => Err(Refusal::bad_request(format!(
                    "{name}: expected a time such as 2026-01-31T12:00:00Z, or how long ago, such as 10m, got {text:?}"
                ))),
            }
        };
        let limit = self.limit.unwrap_or(LIMIT);
        if limit > LIMIT_MAX {
            return Err(Refusal::bad_request(format!("limit: expected up to {LIMIT_MAX}, got {limit}")));
        }
        Ok(Wanted {
            filter: Filter { plugin: given(self.plugin), outcome: outcome.collect::<Result<_, _>>()? },
            id: given(self.id),
            subject: given(self.subject),
            since: time("since", self.since)?.unwrap_or(0),
            until: time("until", self.until)?.unwrap_or(i64::MAX),
            limit,
        })
    }
}

impl Wanted {
    fn wants(&self, record: &Record, subject: Option<&str>) -> bool {
        (self.since..=self.until).contains(&record.at)
            && self.filter.wants(record)
            && self.id.as_ref().is_none_or(|id| *id == *record.id)
            && self.subject.as_ref().is_none_or(|about| subject == Some(about))
    }

    /// Returns the matching records, newest first, and whether the search was complete.
    fn find(&self, journal: &Path) -> Result<(Vec<Value>, bool), StoreError> {
        match (&self.id, &self.subject) {
            (None, None) => self.latest(&Reader::open(journal)?),
            (id, subject) => {
                let timelines = journal::find(journal, id.as_deref(), subject.as_deref())?;
                let records =
                    timelines.iter().flat_map(|line| line.records.iter().map(|one| (one, line.subject.as_deref())));
                let mut found: Vec<_> = records.filter(|(record, subject)| self.wants(record, *subject)).collect();
                found.sort_by_key(|(record, _)| std::cmp::Reverse(record.at));
                found.truncate(self.limit);
                Ok((found.into_iter().map(|(record, subject)| event_line(record, subject)).collect(), true))
            }
        }
    }

    fn latest(&self, reader: &Reader) -> Result<(Vec<Value>, bool), StoreError> {
        let begun = Instant::now();
        let (mut found, mut is_all, mut beyond) = (Vec::new(), true, 0);
        // An event's subject is in its `Received` record, which is older than its other records.
        let (mut nameless, mut subjects) = (BTreeSet::new(), BTreeMap::new());
        reader.back(self.since, self.until, |records| {
            if found.len() >= self.limit {
                beyond += 1;
            }
            for record in records.iter().rev() {
                if found.len() < self.limit && self.wants(record, None) {
                    nameless.insert(record.id.clone());
                    found.push(record.clone());
                }
                if let journal::What::Received(received) = &record.what
                    && nameless.remove(&record.id)
                    && let Some(subject) = &received.subject
                {
                    subjects.insert(record.id.clone(), subject.clone());
                }
            }
            if begun.elapsed() > LOOK_TIME_MAX {
                is_all = found.len() >= self.limit;
                return ControlFlow::Break(());
            }
            let is_enough = found.len() >= self.limit && (nameless.is_empty() || beyond >= CHUNKS_BEYOND);
            if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let subject = |record: &Record| subjects.get(&record.id).map(AsRef::as_ref);
        Ok((found.iter().map(|record| event_line(record, subject(record))).collect(), is_all))
    }
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    QueryParams(query): QueryParams<EventsQuery>,
) -> Result<Json<Value>, Refusal> {
    let wanted = query.read(now())?;
    let (events, is_complete) = ask(&admin, move |journal| wanted.find(&journal)).await?.unwrap_or((Vec::new(), true));
    Ok(Json(json!({ "events": events, "complete": is_complete })))
}

pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    QueryParams(question): QueryParams<Question>,
) -> Result<Json<Value>, Refusal> {
    let Question { id, subject } = question;
    if id.is_some() == subject.is_some() {
        return Err(Refusal::bad_request("say which event: by id, or by subject"));
    }
    let unknown = journal::nothing_known(id.as_deref(), subject.as_deref());
    let found = ask(&admin, move |journal| journal::find(&journal, id.as_deref(), subject.as_deref())).await?;
    let (found, now) = (found.unwrap_or_default(), now());
    if found.is_empty() {
        return Err(Refusal::not_found(unknown));
    }
    Ok(Json(json!({ "events": found.iter().map(|line| journal::json::timeline(line, now)).collect::<Vec<_>>() })))
}

pub(super) async fn stream(
    State(admin): State<Arc<Admin>>,
    QueryParams(query): QueryParams<EventsQuery>,
) -> Result<Response, Refusal> {
    let wanted = query.read(now())?;
    let news = admin.follower.listen(journal(&admin)?).await.map_err(|error| failed(&error))?;
    let lines = heard(news).flat_map(move |news: NewRecords| stream::iter(select(&wanted, &news)));
    admin.streams.answer_named(lines)
}

/// Selects what a stream sends of the new records.
fn select(wanted: &Wanted, news: &NewRecords) -> Vec<(&'static str, Value)> {
    let wants = |(record, subject): &&(Record, Option<String>)| wanted.wants(record, subject.as_deref());
    let count = news.iter().filter(wants).count();
    let left_out = count.saturating_sub(NEWS_MAX);
    let shown = news.iter().filter(wants).skip(left_out);
    let mut lines: Vec<_> = shown.map(|(record, subject)| ("event", event_line(record, subject.as_deref()))).collect();
    if left_out > 0 {
        lines.insert(0, ("gap", json!({ "left_out": left_out })));
    }
    lines
}

fn journal(admin: &Admin) -> Result<&PathBuf, Refusal> {
    let none = || Refusal::not_found("this host keeps no journal: see [journal] in its configuration, and --state");
    admin.sources.journal_file.as_ref().filter(|_| admin.sources.journal.is_on()).ok_or_else(none)
}

/// Asks the journal on a blocking thread, because other tasks must not wait for the disk. `None`: there is no journal
/// file yet.
async fn ask<T: Send + 'static>(
    admin: &Admin,
    question: impl FnOnce(PathBuf) -> Result<T, StoreError> + Send + 'static,
) -> Result<Option<T>, Refusal> {
    let file = journal(admin)?.clone();
    // Acquiring cannot fail: the semaphore is never closed.
    let _turn = admin.questions.acquire().await;
    match apart(move || question(file)).await {
        Ok(answer) => Ok(Some(answer)),
        Err(StoreError::Absent(_)) => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

fn failed(error: &StoreError) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the journal cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_or_refused_with_what_was_expected() {
        let now = 1_800_000_000_000;
        let query = EventsQuery {
            outcome: Some("done,dead-letter".to_owned()),
            since: Some("10m".to_owned()),
            until: Some("2027-01-15T08:00:00Z".to_owned()),
            plugin: Some(String::new()),
            ..EventsQuery::default()
        };
        let wanted = query.read(now).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        assert_eq!(wanted.filter.outcome, [OutcomeFilter::Done, OutcomeFilter::DeadLetter]);
        assert_eq!((wanted.since, wanted.until, wanted.limit), (now - 600_000, now, LIMIT));
        assert_eq!(wanted.filter.plugin, None);
        for (query, expected) in [
            (
                EventsQuery { outcome: Some("good".to_owned()), ..EventsQuery::default() },
                "no outcome \"good\"; there are done, skipped",
            ),
            (
                EventsQuery { since: Some("soon".to_owned()), ..EventsQuery::default() },
                "since: expected a time such as",
            ),
            (EventsQuery { limit: Some(1001), ..EventsQuery::default() }, "limit: expected up to 1000, got 1001"),
        ] {
            let refusal = query.read(now).map(|_| ()).unwrap_err();
            assert!(refusal.sentence.contains(expected), "{refusal:?}");
        }
    }

    #[test]
    fn a_stream_says_what_it_left_out() {
        let wanted = EventsQuery::default().read(0).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        let record = Record {
            at: 1,
            id: "a".into(),
            source: "s".into(),
            event_type: "t".into(),
            what: journal::What::Duplicate,
        };
        let news: NewRecords = Arc::new(vec![(record, None); NEWS_MAX + 7]);
        let lines = select(&wanted, &news);
        assert_eq!((lines.len(), &lines[0]), (NEWS_MAX + 1, &("gap", json!({ "left_out": 7 }))));
    }
}
