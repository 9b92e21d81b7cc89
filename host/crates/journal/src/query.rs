//! Questions to the journal: what became of an event, and what happened lately.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use delivery::{INEXPRESSIBLE, Next, QUARANTINED, Recorded};
use event::text::shown;

use crate::record::{Attempted, Received, Record, What};
use crate::store::{Reader, StoreError};
use crate::timeline::Timeline;

/// Events of one subject that are found.
pub const EVENTS_MAX: usize = 100;
/// Events whose subjects are remembered, to be shown with their attempts.
const SUBJECTS_MAX: usize = 10_000;

/// The events with this id, or about this, of which one is given.
pub fn find(journal: &Path, id: Option<&str>, subject: Option<&str>) -> Result<Vec<Timeline>, StoreError> {
    let reader = Reader::open(journal)?;
    match (id, subject) {
        (Some(id), _) => match by_id(&reader, id)? {
            // Who asks at night has the order's number at hand.
            found if found.is_empty() => by_subject(&reader, id),
            found => Ok(found),
        },
        (None, subject) => by_subject(&reader, subject.unwrap_or_default()),
    }
}

/// That nothing was found, and why that may be.
pub fn nothing_known(id: Option<&str>, subject: Option<&str>) -> String {
    let what = match id {
        Some(id) => format!("event {}", shown(id)),
        None => format!("any event about {}", shown(subject.unwrap_or_default())),
    };
    format!(
        "the journal here knows nothing of {what}: another host may have handled it, it may wait in the queue still, or \
         be older than the journal"
    )
}

fn by_id(reader: &Reader, id: &str) -> Result<Vec<Timeline>, StoreError> {
    let mut records = Vec::new();
    reader.about(id, |record| records.extend((*record.id == *id).then_some(record)))?;
    Ok(Timeline::of(records))
}

fn by_subject(reader: &Reader, subject: &str) -> Result<Vec<Timeline>, StoreError> {
    let mut ids = BTreeSet::new();
    reader.about(subject, |record| {
        if let What::Received(Received { subject: Some(about), .. }) = &record.what
            && **about == *subject
            && ids.len() < EVENTS_MAX
        {
            ids.insert(record.id);
        }
    })?;
    let mut timelines = Vec::new();
    for id in ids {
        let about = |line: &Timeline| line.subject.as_deref() == Some(subject);
        timelines.extend(by_id(reader, &id)?.into_iter().filter(about));
    }
    timelines.sort_by_key(|line| line.records.first().map(|record| record.at));
    timelines.truncate(EVENTS_MAX);
    Ok(timelines)
}

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only what happened at this plugin.
    pub plugin: Option<String>,
    /// Only what came to one of these; empty: to anything.
    pub outcome: Vec<OutcomeFilter>,
}

/// An outcome that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeFilter {
    Done,
    Skipped,
    Retry,
    Reject,
    Misconfigured,
    DeadLetter,
    Unmatched,
    Duplicate,
    Undecodable,
    Quarantined,
}

impl OutcomeFilter {
    pub const ALL: [Self; 10] = [
        Self::Done,
        Self::Skipped,
        Self::Retry,
        Self::Reject,
        Self::Misconfigured,
        Self::DeadLetter,
        Self::Unmatched,
        Self::Duplicate,
        Self::Undecodable,
        Self::Quarantined,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Misconfigured => "misconfigured",
            Self::DeadLetter => "dead-letter",
            Self::Unmatched => "unmatched",
            Self::Duplicate => "duplicate",
            Self::Undecodable => "undecodable",
            Self::Quarantined => "quarantined",
        }
    }

    /// What it means, where the word does not say it.
    pub fn meaning(self) -> Option<&'static str> {
        match self {
            Self::Done | Self::Skipped | Self::Misconfigured => None,
            Self::Retry => Some("Failed, and tried again"),
            Self::Reject => Some("Given up because the plugin said so"),
            Self::DeadLetter => Some("Given up, for whatever reason"),
            Self::Unmatched => Some("No plugin wanted it"),
            Self::Duplicate => Some("Came a second time"),
            Self::Undecodable => Some("No event at all"),
            Self::Quarantined => Some("Broke the session, and was set aside"),
        }
    }
}

/// There is no such outcome.
#[derive(Debug)]
pub struct UnknownOutcome(String);

impl fmt::Display for UnknownOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = OutcomeFilter::ALL.map(OutcomeFilter::as_str);
        write!(f, "there is no outcome {:?}; there are {}", self.0, known.join(", "))
    }
}

impl std::error::Error for UnknownOutcome {}

impl FromStr for OutcomeFilter {
    type Err = UnknownOutcome;

    fn from_str(word: &str) -> Result<Self, UnknownOutcome> {
        let known = Self::ALL.into_iter().find(|outcome| outcome.as_str() == word);
        known.ok_or_else(|| UnknownOutcome(word.to_owned()))
    }
}

impl Filter {
    pub fn wants(&self, record: &Record) -> bool {
        let outcomes = outcomes(record);
        let plugin = match &record.what {
            What::Attempted(Attempted { plugin, .. }) | What::Declined { plugin, .. } => Some(plugin),
            What::Received(_) | What::Duplicate | What::Spilled { .. } | What::Undecodable { .. } => None,
        };
        !outcomes.is_empty()
            && (self.outcome.is_empty() || self.outcome.iter().any(|wanted| outcomes.contains(wanted)))
            && self.plugin.as_ref().is_none_or(|wanted| plugin.is_some_and(|plugin| **plugin == **wanted))
    }
}

/// What the record says of an outcome; nothing if the event is only on its way.
fn outcomes(record: &Record) -> Vec<OutcomeFilter> {
    match &record.what {
        What::Attempted(attempted) => {
            let outcome = match attempted.outcome {
                Recorded::Done => OutcomeFilter::Done,
                Recorded::Skipped => OutcomeFilter::Skipped,
                Recorded::Retry(_) => OutcomeFilter::Retry,
                Recorded::Reject(_) => OutcomeFilter::Reject,
                Recorded::Misconfigured => OutcomeFilter::Misconfigured,
            };
            match attempted.next {
                Next::DeadLetter(_) => vec![outcome, OutcomeFilter::DeadLetter],
                Next::Nothing | Next::Attempt(_) | Next::Held | Next::Unsettled => vec![outcome],
            }
        }
        What::Received(received) if is_unmatched(received) => vec![OutcomeFilter::Unmatched],
        What::Declined { .. } => vec![OutcomeFilter::Unmatched],
        What::Received(_) | What::Spilled { .. } => Vec::new(),
        What::Duplicate => vec![OutcomeFilter::Duplicate],
        What::Undecodable { code, .. } => match &**code {
            QUARANTINED => vec![OutcomeFilter::Quarantined, OutcomeFilter::DeadLetter],
            INEXPRESSIBLE => vec![OutcomeFilter::DeadLetter],
            _ => vec![OutcomeFilter::Undecodable, OutcomeFilter::DeadLetter],
        },
    }
}

fn is_unmatched(received: &Received) -> bool {
    !received.routed.iter().any(|routed| routed.rule.is_wanted())
}

/// The subjects of events, which only the record of their coming has.
#[derive(Default)]
pub struct Subjects {
    known: HashMap<Box<str>, Box<str>>,
    order: VecDeque<Box<str>>,
}

impl Subjects {
    pub fn of(&self, record: &Record) -> Option<&str> {
        self.known.get(&record.id).map(AsRef::as_ref)
    }

    pub fn learn(&mut self, record: &Record) {
        let What::Received(Received { subject: Some(subject), .. }) = &record.what else { return };
        if self.known.insert(record.id.clone(), subject.clone()).is_none() {
            self.order.push_back(record.id.clone());
        }
        if self.order.len() > SUBJECTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}
