//! Records and timelines as JSON, as commands and the HTTP API give them.

use delivery::{INEXPRESSIBLE, Next, QUARANTINED, Recorded, Rule};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::record::{Attempted, Line, Record, Routed, SpillReason, What};
use crate::timeline::{Standing, Timeline};

/// One event as JSON.
pub fn timeline(timeline: &Timeline, now: i64) -> Value {
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
        "records": timeline.records.iter().map(record).collect::<Vec<_>>(),
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
pub fn record(record: &Record) -> Value {
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

/// One thing that happened, with the event that it happened to.
pub fn event_line(record: &Record, subject: Option<&str>) -> Value {
    let mut line = self::record(record);
    line["id"] = json!(record.id);
    line["source"] = json!(record.source);
    line["type"] = json!(record.event_type);
    line["subject"] = json!(subject);
    line
}

/// Why a delivery waits in its plugin's queue, in words.
pub fn waits_for(why: SpillReason) -> &'static str {
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

/// For people and for scripts.
pub fn word(outcome: &Recorded) -> &'static str {
    match outcome {
        Recorded::Done => "done",
        Recorded::Skipped => "skipped",
        Recorded::Retry(_) => "retry",
        Recorded::Reject(_) => "reject",
        Recorded::Misconfigured => "misconfigured",
    }
}

/// RFC 3339, in milliseconds.
pub fn time(at: i64) -> String {
    Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |time| format!("{time:.3}"))
}
