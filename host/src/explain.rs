//! `notify-host explain`: what became of an event, from the host's journal.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::command::{counted, say, shown, unless_cut_off, write_json};
use crate::control::Hosts;
use crate::delivery::clock::now;
use crate::delivery::{INEXPRESSIBLE, QUARANTINED};
use crate::journal::{
    self, Attempted, Line, Next, Reader, Received, Record, Recorded, Routed, Rule, SpillReason, Standing, StoreError,
    Timeline, What,
};

/// Events of one subject that are shown.
const EVENTS_MAX: usize = 100;
/// How long a host that runs may take to write down what has just happened, and between two looks for it.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The event's id; if there is no such event, the subject of several
    #[arg(value_name = "EVENT_ID", required_unless_present = "subject")]
    id: Option<String>,
    /// All events about this, such as an order's id
    #[arg(long, value_name = "SUBJECT", conflicts_with = "id")]
    subject: Option<String>,
    /// One JSON object a line, one for each event
    #[arg(long)]
    json: bool,
}

/// `state` is what belongs to the plugin folder in the state folder.
pub(crate) async fn run(arguments: &Arguments, state: &Path) -> anyhow::Result<()> {
    let file = journal::file(state);
    let (id, subject) = (arguments.id.as_deref(), arguments.subject.as_deref());
    let mut found = find(&file, id, subject);
    let mut hosts = 0;
    if is_nothing(&found) {
        hosts = Hosts::find(state).await.count();
        let until = Instant::now() + PATIENCE;
        while hosts > 0 && is_nothing(&found) && Instant::now() < until {
            tokio::time::sleep(LOOK_INTERVAL).await;
            found = find(&file, id, subject);
        }
    }
    let timelines = found?;
    if timelines.is_empty() {
        let running = if hosts == 0 { "; no host of yours runs with this plugin folder now" } else { "" };
        bail!("{}{running}", nothing_known(id, subject));
    }
    let now = now();
    unless_cut_off(print(&timelines, now, arguments.json))?;
    if timelines.len() == EVENTS_MAX {
        say!("these are the first {EVENTS_MAX}; ask by the id for another");
    }
    Ok(())
}

/// The events with this id, or about this, of which one is given.
pub(crate) fn find(journal: &Path, id: Option<&str>, subject: Option<&str>) -> Result<Vec<Timeline>, StoreError> {
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
pub(crate) fn nothing_known(id: Option<&str>, subject: Option<&str>) -> String {
    let what = match id {
        Some(id) => format!("event {}", shown(id)),
        None => format!("any event about {}", shown(subject.unwrap_or_default())),
    };
    format!(
        "the journal here knows nothing of {what}: another host may have handled it, it may wait in the queue still, or \
         be older than the journal"
    )
}

/// A host that has just begun has not even made the file.
fn is_nothing(found: &Result<Vec<Timeline>, StoreError>) -> bool {
    match found {
        Ok(timelines) => timelines.is_empty(),
        Err(StoreError::Absent(_)) => true,
        Err(_) => false,
    }
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

fn print(timelines: &[Timeline], now: i64, json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for (at, timeline) in timelines.iter().enumerate() {
        if json {
            write_json(&mut out, &as_json(timeline, now))?;
            continue;
        }
        if at > 0 {
            writeln!(out)?;
        }
        write(&mut out, timeline, now)?;
    }
    out.flush()
}

fn write(out: &mut impl Write, timeline: &Timeline, now: i64) -> io::Result<()> {
    let subject = timeline.subject.as_deref().map(|subject| format!(" about {}", shown(subject))).unwrap_or_default();
    let (event_type, id, source) = (shown(&timeline.event_type), shown(&timeline.id), shown(&timeline.source));
    writeln!(out, "{event_type} {id}{subject}, source {source}")?;
    if !timeline.has_beginning() {
        writeln!(out, "  (how it came is not in this journal: another host received it, or it was long ago)")?;
    }
    for record in &timeline.records {
        let mut lines = sentences(record).into_iter();
        writeln!(out, "  {}  {}", time(record.at), lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(out, "  {:24}  {line}", "")?;
        }
    }
    let standings = timeline.standings(now);
    for (plugin, standing) in &standings {
        writeln!(out, "  {}: {}", shown(plugin), stands(standing))?;
    }
    if standings.is_empty() && timeline.records.iter().any(|record| matches!(record.what, What::Received(_))) {
        writeln!(
            out,
            "  no plugin wanted it, so it is settled; `notify-host route` says why for each plugin as it is now"
        )?;
    }
    Ok(())
}

fn time(at: i64) -> String {
    Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |time| format!("{time:.3}"))
}

/// What happened, the first on the line of its time.
fn sentences(record: &Record) -> Vec<String> {
    match &record.what {
        What::Received(received) => {
            let Received { exchange, routing_key, redelivered, bytes, routed, not_subscribed, .. } = received;
            let again = if *redelivered { " again" } else { "" };
            let mut lines = vec![format!(
                "received{again} from exchange {:?} with routing key {:?}, {bytes} bytes",
                shown(exchange),
                shown(routing_key)
            )];
            lines.extend(routed.iter().map(|routed| format!("{}: {}", shown(&routed.plugin), because(&routed.rule))));
            if let count @ 1.. = *not_subscribed {
                lines.push(format!(
                    "{} not subscribed to it",
                    counted(usize::try_from(count).unwrap_or(usize::MAX), "plugin")
                ));
            }
            lines
        }
        What::Duplicate => vec!["came again within the duplicates window: not delivered a second time".to_owned()],
        What::Spilled { plugin, why } => vec![format!("{}: waits in its queue: {}", shown(plugin), waits_for(*why))],
        What::Declined { plugin, why } => {
            vec![format!("{}: does not get it, now that it has loaded: {}", shown(plugin), shown(why))]
        }
        What::Attempted(attempted) => attempt(attempted),
        What::Undecodable { code, reason, exchange, routing_key, bytes } => vec![
            format!(
                "received from exchange {:?} with routing key {:?}, {bytes} bytes",
                shown(exchange),
                shown(routing_key)
            ),
            match &**code {
                QUARANTINED => format!("set aside and dead-lettered ({code}): {}", shown(reason)),
                INEXPRESSIBLE => format!("dead-lettered ({code}): {}", shown(reason)),
                _ => format!("dead-lettered as it came, for it is no event ({code}): {}", shown(reason)),
            },
        ],
    }
}

fn because(rule: &Rule) -> String {
    match rule {
        Rule::Everything => "matched: it gets every event".to_owned(),
        Rule::Subscription(rule) => format!("matched: {}", shown(rule)),
        Rule::Filtered(why) => format!("filtered: {}", shown(why)),
        Rule::AboutItself => "does not get it: it tells of its own health".to_owned(),
        Rule::NotYetRouted => "not yet routed: it has not been loaded, and so may want it".to_owned(),
    }
}

fn waits_for(why: SpillReason) -> &'static str {
    match why {
        SpillReason::Busy => "it was busy",
        SpillReason::Failing => "it was failing, and left alone for a while",
        SpillReason::Misconfigured => "it said that it was misconfigured",
        SpillReason::Paused => "it was paused",
        SpillReason::QuietHours => "it had quiet hours",
        SpillReason::RateLimited => "its rate did not allow it yet",
        SpillReason::NotLoaded => "it had not been loaded yet",
        SpillReason::LogBlocked => "its log lines are its work, and the log took none",
    }
}

fn attempt(attempted: &Attempted) -> Vec<String> {
    let Attempted { plugin, number, max, round, took_micros, outcome, reason, next, log, log_beyond, .. } = attempted;
    let round = if *round > 1 { format!(" after replay {}", round - 1) } else { String::new() };
    let reason = reason.as_deref().map(|reason| format!(": {}", shown(reason))).unwrap_or_default();
    let next = match next {
        Next::Nothing => String::new(),
        Next::Attempt(at) => format!("; next not before {}", time(*at)),
        Next::DeadLetter(why) => format!("; dead-lettered ({why})"),
        Next::Unsettled => "; the broker was lost before that was settled, so the event comes again".to_owned(),
        Next::Held => "; the plugin is paused, and the event waits in its queue".to_owned(),
    };
    let took = milliseconds(*took_micros);
    let mut lines =
        vec![format!("{}: attempt {number} of {max}{round}, {took}: {}{reason}{next}", shown(plugin), word(outcome))];
    lines.extend(log.iter().map(|line| format!("| {:5} {}", line.level, shown(&line.text()))));
    if *log_beyond > 0 {
        let more = counted(usize::try_from(*log_beyond).unwrap_or(usize::MAX), "more line");
        lines.push(format!("| and {more} in the host's log"));
    }
    lines
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

/// For people and for scripts.
pub(crate) fn word(outcome: &Recorded) -> &'static str {
    match outcome {
        Recorded::Done => "done",
        Recorded::Skipped => "skipped",
        Recorded::Retry(_) => "retry",
        Recorded::Reject(_) => "reject",
        Recorded::Misconfigured => "misconfigured",
    }
}

fn stands(standing: &Standing) -> String {
    match standing {
        Standing::Settled { skipped, attempts, at } => {
            let what = if *skipped { "skipped it" } else { "done" };
            format!(
                "{what} at {}, after {}",
                time(*at),
                counted(usize::try_from(*attempts).unwrap_or(usize::MAX), "attempt")
            )
        }
        Standing::Waits { due_at } => format!("waits for its next attempt, at {} or soon after", time(*due_at)),
        Standing::Elsewhere { due_at } => format!(
            "its next attempt was due at {}, and none is in this journal: another host may have made it, or it still \
             waits in its queue",
            time(*due_at)
        ),
        Standing::Queued { at } => format!("waits in its queue since {}, unless another host has taken it", time(*at)),
        Standing::Held { at } => format!("waits since {} until the plugin goes on", time(*at)),
        Standing::DeadLetter { why, at } => {
            format!(
                "a dead letter since {} ({why}), unless it was replayed: `notify-host dead-letters list`",
                time(*at)
            )
        }
        Standing::Unsettled { at } => {
            format!("comes again: the broker was lost at {} before the outcome was settled", time(*at))
        }
        Standing::Filtered => "does not get it".to_owned(),
        Standing::Begun { at } => {
            format!(
                "its attempt began at {}, and no end of it is in this journal yet; if the host died in it, it is made \
                 anew by the host that gets the event then",
                time(*at)
            )
        }
    }
}

/// One event as JSON.
pub(crate) fn as_json(timeline: &Timeline, now: i64) -> Value {
    let standings: serde_json::Map<_, _> = timeline
        .standings(now)
        .into_iter()
        .map(|(plugin, standing)| (plugin.to_string(), standing_as_json(&standing)))
        .collect();
    json!({
        "id": timeline.id,
        "source": timeline.source,
        "type": timeline.event_type,
        "subject": timeline.subject,
        "received_here": timeline.has_beginning(),
        "records": timeline.records.iter().map(record_as_json).collect::<Vec<_>>(),
        "plugins": standings,
    })
}

fn standing_as_json(standing: &Standing) -> Value {
    match standing {
        Standing::Settled { skipped, attempts, at } => {
            json!({ "state": if *skipped { "skipped" } else { "done" }, "attempts": attempts, "at": time(*at) })
        }
        Standing::Waits { due_at } => json!({ "state": "waits", "due_at": time(*due_at) }),
        Standing::Elsewhere { due_at } => json!({ "state": "elsewhere", "due_at": time(*due_at) }),
        Standing::Queued { at } => json!({ "state": "queued", "at": time(*at) }),
        Standing::Held { at } => json!({ "state": "held", "at": time(*at) }),
        Standing::DeadLetter { why, at } => json!({ "state": "dead-letter", "why": why, "at": time(*at) }),
        Standing::Unsettled { at } => json!({ "state": "unsettled", "at": time(*at) }),
        Standing::Filtered => json!({ "state": "filtered" }),
        Standing::Begun { at } => json!({ "state": "begun", "at": time(*at) }),
    }
}

/// One thing that happened as JSON.
pub(crate) fn record_as_json(record: &Record) -> Value {
    let mut json = match &record.what {
        What::Received(received) => json!({
            "what": "received",
            "exchange": received.exchange,
            "routing_key": received.routing_key,
            "redelivered": received.redelivered,
            "bytes": received.bytes,
            "time": received.time,
            "subject": received.subject,
            "routed": received.routed.iter().map(routed_as_json).collect::<Vec<_>>(),
            "not_subscribed": received.not_subscribed,
        }),
        What::Duplicate => json!({ "what": "duplicate" }),
        What::Spilled { plugin, why } => json!({ "what": "spilled", "plugin": **plugin, "why": waits_for(*why) }),
        What::Declined { plugin, why } => json!({ "what": "declined", "plugin": **plugin, "why": **why }),
        What::Attempted(attempted) => attempt_as_json(attempted),
        What::Undecodable { code, reason, exchange, routing_key, bytes } => json!({
            "what": match &**code {
                word @ (QUARANTINED | INEXPRESSIBLE) => word,
                _ => "undecodable",
            },
            "code": code,
            "reason": reason,
            "exchange": exchange,
            "routing_key": routing_key,
            "bytes": bytes,
        }),
    };
    json["at"] = json!(time(record.at));
    json
}

fn line_as_json(line: &Line) -> Value {
    json!({ "level": line.level, "message": line.text() })
}

fn routed_as_json(Routed { plugin, rule }: &Routed) -> Value {
    let (gets, rule) = match rule {
        Rule::Everything => (Some(true), None),
        Rule::Subscription(rule) => (Some(true), Some(rule.to_string())),
        Rule::Filtered(why) => (Some(false), Some(why.to_string())),
        Rule::AboutItself => (Some(false), None),
        // Nobody knows yet.
        Rule::NotYetRouted => (None, None),
    };
    json!({ "plugin": **plugin, "gets": gets, "rule": rule })
}

fn attempt_as_json(attempted: &Attempted) -> Value {
    let code = match &attempted.outcome {
        Recorded::Retry(code) | Recorded::Reject(code) => Some(code),
        Recorded::Done | Recorded::Skipped | Recorded::Misconfigured => None,
    };
    let (next_at, given_up) = match &attempted.next {
        Next::Nothing | Next::Held | Next::Unsettled => (None, None),
        Next::Attempt(at) => (Some(time(*at)), None),
        Next::DeadLetter(why) => (None, Some(why)),
    };
    json!({
        "what": "attempted",
        "plugin": *attempted.plugin,
        "attempt": attempted.number,
        "max_attempts": attempted.max,
        "round": attempted.round,
        "microseconds": attempted.took_micros,
        "outcome": word(&attempted.outcome),
        "code": code,
        "reason": attempted.reason,
        "next_at": next_at,
        "given_up": given_up,
        "log": attempted.log.iter().map(line_as_json).collect::<Vec<_>>(),
        "log_lines_beyond": attempted.log_beyond,
    })
}
