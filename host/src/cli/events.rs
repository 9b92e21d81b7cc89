//! `notify-host events`: prints what became of events, line by line, as `tail` prints a log.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use config::parse_duration;
use delivery::{INEXPRESSIBLE, QUARANTINED};
use event::clock::now;
use event::text::shown;
use journal::json::{event_line, time, word};
use journal::{Attempted, Filter, Next, OutcomeFilter, Reader, Record, Recorded, Subjects, What};

use crate::cli::command::{unless_cut_off, write_json};

/// Poll interval for new records.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Keep printing new events until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Only events at this plugin
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Only attempts with this outcome
    #[arg(long, value_name = "OUTCOME", value_parser = outcomes())]
    outcome: Vec<OutcomeFilter>,
    /// Only events within this time, e.g. 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
    /// Number of lines, the most recent ones [default: 20, or all with --since]
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<usize>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Parses an outcome. `--help` shows the meaning of each.
fn outcomes() -> impl TypedValueParser<Value = OutcomeFilter> {
    let values = OutcomeFilter::ALL.iter().map(|outcome| {
        let value = PossibleValue::new(outcome.as_str());
        match outcome.meaning() {
            Some(meaning) => value.help(meaning),
            None => value,
        }
    });
    PossibleValuesParser::new(values).try_map(|word| word.parse::<OutcomeFilter>())
}

pub(crate) async fn run(arguments: &Arguments, journal: &Path) -> anyhow::Result<()> {
    const LINES: usize = 20;
    let filter = Filter { plugin: arguments.plugin.clone(), outcome: arguments.outcome.clone() };
    let reader = Reader::open(journal)?;
    let since =
        arguments.since.map_or(0, |since| now().saturating_sub(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)));
    let lines = arguments.lines.unwrap_or(if arguments.since.is_some() { usize::MAX } else { LINES });
    let mut subjects = Subjects::default();
    let mut last = VecDeque::new();
    // A journal of a week may have millions of records, so start near its end.
    let place = match lines {
        usize::MAX => 0,
        lines => reader.before_last(lines, since, |record| filter.wants(record))?,
    };
    let mut after = reader.since(since, place, |record| {
        subjects.learn(&record);
        if filter.wants(&record) {
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
            if filter.wants(&record) {
                more.push_back(record);
            }
        })?;
        if !print(&more, &subjects, arguments.json)? {
            return Ok(());
        }
    }
}

/// Prints the records. Returns whether anybody still reads the output.
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
        return write_json(out, &event_line(record, subject));
    }
    let time = time(record.at);
    let (event_type, id) = (shown(&record.event_type), shown(&record.id));
    let subject = subject.map(|subject| format!(" about {}", shown(subject))).unwrap_or_default();
    writeln!(out, "{time}  {event_type} {id}{subject}  {}", what(record))
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
