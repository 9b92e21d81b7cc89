//! `notify-host explain`: tells what became of an event, from the host's journal.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use delivery::{INEXPRESSIBLE, QUARANTINED};
use event::clock::now;
use event::text::{counted, shown};
use journal::json::{time, waits_for, word};
use journal::{
    Attempted, EVENTS_MAX, Next, Received, Record, Rule, Standing, StoreError, Timeline, What, find, nothing_known,
};
use tokio::time::Instant;

use crate::cli::command::{say, unless_cut_off, write_json};
use crate::cli::hosts::Hosts;

/// How long to wait for a running host to write its latest records, and the interval of the checks.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Event id; if no event has it, the subject of several events
    #[arg(value_name = "EVENT_ID", required_unless_present = "subject")]
    id: Option<String>,
    /// All events with this subject, such as an order's id
    #[arg(long, value_name = "SUBJECT", conflicts_with = "id")]
    subject: Option<String>,
    /// Print one JSON object per line, one for each event
    #[arg(long)]
    json: bool,
}

/// Runs the command. `state` is the plugin folder's part of the state folder.
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

/// Whether nothing was found yet. A host that has just started has not even created the file.
fn is_nothing(found: &Result<Vec<Timeline>, StoreError>) -> bool {
    match found {
        Ok(timelines) => timelines.is_empty(),
        Err(StoreError::Absent(_)) => true,
        Err(_) => false,
    }
}

fn print(timelines: &[Timeline], now: i64, json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for (at, timeline) in timelines.iter().enumerate() {
        if json {
            write_json(&mut out, &journal::json::timeline(timeline, now))?;
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

/// Describes a record. The first sentence goes on the line with the time.
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
            lines.extend(
                routed.iter().map(|routed| format!("{}: {}", shown(&routed.plugin), route_reason(&routed.rule))),
            );
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

fn route_reason(rule: &Rule) -> String {
    match rule {
        Rule::Everything => "matched: it gets every event".to_owned(),
        Rule::Subscription(rule) => format!("matched: {}", shown(rule)),
        Rule::Filtered(why) => format!("filtered: {}", shown(why)),
        Rule::AboutItself => "does not get it: it tells of its own health".to_owned(),
        Rule::NotYetRouted => "not yet routed: it has not been loaded, and so may want it".to_owned(),
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
