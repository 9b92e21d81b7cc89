//! `notify-host events`: what becomes of events, line by line, as `tail` shows a log.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::command::{shown, unless_cut_off, write_json};
use crate::config::parse_duration;
use crate::delivery::clock::now;
use crate::delivery::{INEXPRESSIBLE, QUARANTINED};
use crate::explain::{record_as_json, word};
use crate::journal::{Attempted, Next, Reader, Received, Record, Recorded, What};

/// Between two looks for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// Events whose subjects are remembered, to be shown with their attempts.
const SUBJECTS_MAX: usize = 10_000;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Go on with what happens from now on, until interrupted
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    filter: Filter,
    /// Only what happened within this time, e.g. 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
    /// The last so many lines [default: 20, or all with --since]
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<usize>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Of what is told here, only this.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only what happened at this plugin
    #[arg(long, value_name = "NAME")]
    pub(crate) plugin: Option<String>,
    /// Only what came to this
    #[arg(long, value_name = "OUTCOME", value_enum)]
    pub(crate) outcome: Vec<Outcome>,
}

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Outcome {
    Done,
    Skipped,
    /// Failed, and tried again
    Retry,
    /// Given up because the plugin said so
    Reject,
    Misconfigured,
    /// Given up, for whatever reason
    DeadLetter,
    /// No plugin wanted it
    Unmatched,
    /// Came a second time
    Duplicate,
    /// No event at all
    Undecodable,
    /// Broke the session, and was set aside
    Quarantined,
}

pub(crate) async fn run(arguments: &Arguments, journal: &Path) -> anyhow::Result<()> {
    const LINES: usize = 20;
    let reader = Reader::open(journal)?;
    let since =
        arguments.since.map_or(0, |since| now().saturating_sub(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)));
    let lines = arguments.lines.unwrap_or(if arguments.since.is_some() { usize::MAX } else { LINES });
    let mut subjects = Subjects::default();
    let mut last = VecDeque::new();
    // A journal of a week may have millions of records.
    let place = match lines {
        usize::MAX => 0,
        lines => reader.before_last(lines, since, |record| arguments.filter.wants(record))?,
    };
    let mut after = reader.since(since, place, |record| {
        subjects.learn(&record);
        if arguments.filter.wants(&record) {
            last.push_back(record);
        }
        if last.len() > lines {
            last.pop_front();
        }
    })?;
    if !print(&last, &subjects, arguments.json)? {
        return Ok(());
    }
    if !arguments.follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        let mut more = VecDeque::new();
        after = reader.since(0, after, |record| {
            subjects.learn(&record);
            if arguments.filter.wants(&record) {
                more.push_back(record);
            }
        })?;
        if !print(&more, &subjects, arguments.json)? {
            return Ok(());
        }
    }
}

impl Filter {
    pub(crate) fn wants(&self, record: &Record) -> bool {
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
fn outcomes(record: &Record) -> Vec<Outcome> {
    match &record.what {
        What::Attempted(attempted) => {
            let outcome = match attempted.outcome {
                Recorded::Done => Outcome::Done,
                Recorded::Skipped => Outcome::Skipped,
                Recorded::Retry(_) => Outcome::Retry,
                Recorded::Reject(_) => Outcome::Reject,
                Recorded::Misconfigured => Outcome::Misconfigured,
            };
            match attempted.next {
                Next::DeadLetter(_) => vec![outcome, Outcome::DeadLetter],
                Next::Nothing | Next::Attempt(_) | Next::Held | Next::Unsettled => vec![outcome],
            }
        }
        What::Received(received) if is_unmatched(received) => vec![Outcome::Unmatched],
        What::Declined { .. } => vec![Outcome::Unmatched],
        What::Received(_) | What::Spilled { .. } => Vec::new(),
        What::Duplicate => vec![Outcome::Duplicate],
        What::Undecodable { code, .. } => match &**code {
            QUARANTINED => vec![Outcome::Quarantined, Outcome::DeadLetter],
            INEXPRESSIBLE => vec![Outcome::DeadLetter],
            _ => vec![Outcome::Undecodable, Outcome::DeadLetter],
        },
    }
}

fn is_unmatched(received: &Received) -> bool {
    !received.routed.iter().any(|routed| routed.rule.is_wanted())
}

/// The subjects of events, which only the record of their coming has.
#[derive(Default)]
pub(crate) struct Subjects {
    known: HashMap<Box<str>, Box<str>>,
    order: VecDeque<Box<str>>,
}

impl Subjects {
    pub(crate) fn of(&self, record: &Record) -> Option<&str> {
        self.known.get(&record.id).map(AsRef::as_ref)
    }

    pub(crate) fn learn(&mut self, record: &Record) {
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

/// Whether somebody still reads.
fn print(records: &VecDeque<Record>, subjects: &Subjects, json: bool) -> anyhow::Result<bool> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut write = || {
        for record in records {
            write_one(&mut out, record, subjects, json)?;
        }
        out.flush()
    };
    match write() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => unless_cut_off(written).map(|()| true),
    }
}

fn write_one(out: &mut impl Write, record: &Record, subjects: &Subjects, json: bool) -> io::Result<()> {
    let subject = subjects.of(record);
    if json {
        return write_json(out, &as_json(record, subject));
    }
    let time =
        Timestamp::from_millisecond(record.at).map_or_else(|_| record.at.to_string(), |time| format!("{time:.3}"));
    let (event_type, id) = (shown(&record.event_type), shown(&record.id));
    let subject = subject.map(|subject| format!(" about {}", shown(subject))).unwrap_or_default();
    writeln!(out, "{time}  {event_type} {id}{subject}  {}", what(record))
}

/// One thing that happened, with the event that it happened to.
pub(crate) fn as_json(record: &Record, subject: Option<&str>) -> Value {
    let mut line = record_as_json(record);
    line["id"] = json!(record.id);
    line["source"] = json!(record.source);
    line["type"] = json!(record.event_type);
    line["subject"] = json!(subject);
    line
}

fn what(record: &Record) -> String {
    match &record.what {
        What::Attempted(Attempted { plugin, number, max, outcome, reason, next, .. }) => {
            let reason = reason.as_deref().map(|reason| format!(": {}", shown(reason))).unwrap_or_default();
            let given_up = if matches!(next, Next::DeadLetter(_)) { ", dead-lettered" } else { "" };
            let attempt =
                if *number > 1 || *outcome != Recorded::Done { format!(" ({number} of {max})") } else { String::new() };
            format!("{}: {}{attempt}{given_up}{reason}", shown(plugin), word(outcome))
        }
        What::Received(_) => "no plugin wanted it".to_owned(),
        What::Duplicate => "a duplicate, not delivered again".to_owned(),
        What::Spilled { plugin, .. } => format!("{}: waits in its queue", shown(plugin)),
        What::Declined { plugin, why } => format!("{}: did not want it: {}", shown(plugin), shown(why)),
        What::Undecodable { code, reason, .. } => {
            let what = match &**code {
                QUARANTINED => "set aside, ",
                INEXPRESSIBLE => "",
                _ => "no event, ",
            };
            format!("{what}dead-lettered: {}", shown(reason))
        }
    }
}
