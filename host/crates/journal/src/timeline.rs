//! A timeline is what the journal has of one event, in order, and how that stands at the end.

use std::collections::BTreeMap;

use delivery::Next;

use crate::record::{Attempted, Record, Recorded, Routed, What};

/// How long after it was due an attempt may still be on its way through the broker.
const LATE_MILLIS: i64 = 60_000;

/// One event's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    pub id: Box<str>,
    pub source: Box<str>,
    pub event_type: Box<str>,
    pub subject: Option<Box<str>>,
    /// The oldest first.
    pub records: Vec<Record>,
}

/// How the event stands with one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Done or skipped, after so many attempts.
    Settled {
        skipped: bool,
        attempts: u32,
        at: i64,
    },
    /// It waits for another attempt, which is due then.
    Waits {
        due_at: i64,
    },
    /// The next attempt is long due, and this journal has none.
    Elsewhere {
        due_at: i64,
    },
    /// It waits in the plugin's own queue for its turn.
    Queued {
        at: i64,
    },
    /// The plugin is paused, and keeps it.
    Held {
        at: i64,
    },
    DeadLetter {
        why: Box<str>,
        at: i64,
    },
    /// The broker was lost before the last outcome was settled, so that it comes again.
    Unsettled {
        at: i64,
    },
    /// It did not want it.
    Filtered,
    /// It is being tried now, or the host ended before it was done.
    Begun {
        at: i64,
    },
}

impl Timeline {
    /// Of the records of one or several events, in the order of their first ones.
    pub fn of(records: Vec<Record>) -> Vec<Self> {
        let mut timelines: Vec<Self> = Vec::new();
        for record in records {
            let known = timelines.iter_mut().find(|line| line.id == record.id && line.source == record.source);
            let timeline = if let Some(timeline) = known {
                timeline
            } else {
                timelines.push(Self {
                    id: record.id.clone(),
                    source: record.source.clone(),
                    event_type: record.event_type.clone(),
                    subject: None,
                    records: Vec::new(),
                });
                let last = timelines.len() - 1;
                &mut timelines[last]
            };
            if let What::Received(received) = &record.what {
                timeline.subject = timeline.subject.take().or_else(|| received.subject.clone());
            }
            timeline.records.push(record);
        }
        for timeline in &mut timelines {
            // Those of several hosts, and of calls side by side, need not have been written in order.
            timeline.records.sort_by_key(Record::order);
        }
        timelines
    }

    /// Each plugin that has to do with it, at this time.
    pub fn standings(&self, now: i64) -> BTreeMap<Box<str>, Standing> {
        let mut standings = BTreeMap::new();
        for record in &self.records {
            match &record.what {
                What::Received(received) => {
                    for Routed { plugin, rule } in &received.routed {
                        let standing =
                            if rule.is_wanted() { Standing::Begun { at: record.at } } else { Standing::Filtered };
                        // A message that came again finds what was done before.
                        standings.entry(plugin.clone()).or_insert(standing);
                    }
                }
                What::Spilled { plugin, .. } => {
                    standings.insert(plugin.clone(), Standing::Queued { at: record.at });
                }
                What::Declined { plugin, .. } => {
                    standings.insert(plugin.clone(), Standing::Filtered);
                }
                What::Attempted(attempted) => {
                    standings.insert(attempted.plugin.clone(), after(attempted, record.at, now));
                }
                What::Duplicate | What::Undecodable { .. } => {}
            }
        }
        standings
    }

    /// Whether this journal knows how it came.
    pub fn has_beginning(&self) -> bool {
        let begins = |record: &Record| matches!(record.what, What::Received(_) | What::Undecodable { .. });
        self.records.iter().any(begins)
    }
}

fn after(attempted: &Attempted, at: i64, now: i64) -> Standing {
    match &attempted.next {
        Next::Nothing => {
            let skipped = attempted.outcome == Recorded::Skipped;
            Standing::Settled { skipped, attempts: attempted.number, at }
        }
        Next::Attempt(due_at) if now.saturating_sub(*due_at) > LATE_MILLIS => Standing::Elsewhere { due_at: *due_at },
        Next::Attempt(due_at) => Standing::Waits { due_at: *due_at },
        Next::DeadLetter(why) => Standing::DeadLetter { why: why.clone(), at },
        Next::Held => Standing::Held { at },
        Next::Unsettled => Standing::Unsettled { at },
    }
}

#[cfg(test)]
mod tests {
    use delivery::Rule;

    use super::*;
    use crate::record::Received;

    fn record(at: i64, what: What) -> Record {
        Record { at, id: "1".into(), source: "shop".into(), event_type: "OrderCreated".into(), what }
    }

    fn received(at: i64, routed: &[(&str, Rule)]) -> Record {
        let routed = routed.iter().map(|(plugin, rule)| Routed { plugin: (*plugin).into(), rule: rule.clone() });
        record(
            at,
            What::Received(Received {
                subject: Some("4711".into()),
                time: None,
                exchange: "orders".into(),
                routing_key: "order.created".into(),
                redelivered: false,
                bytes: 10,
                routed: routed.collect(),
                not_subscribed: 0,
            }),
        )
    }

    fn attempted(at: i64, plugin: &str, number: u32, outcome: Recorded, next: Next) -> Record {
        record(
            at,
            What::Attempted(Attempted {
                plugin: plugin.into(),
                number,
                max: 8,
                round: 1,
                first_at: 0,
                took_micros: 5,
                outcome,
                reason: None,
                next,
                log: Vec::new(),
                log_beyond: 0,
            }),
        )
    }

    fn standing(records: &[Record], plugin: &str, now: i64) -> Option<Standing> {
        let mut timelines = Timeline::of(records.to_vec());
        assert_eq!(timelines.len(), 1);
        timelines.remove(0).standings(now).remove(plugin)
    }

    #[test]
    fn the_last_that_happened_says_how_it_stands() {
        let begun = received(10, &[("a", Rule::Everything), ("b", Rule::Filtered("no".into()))]);
        let retry = attempted(20, "a", 1, Recorded::Retry("retry".into()), Next::Attempt(1020));
        let done = attempted(1030, "a", 2, Recorded::Done, Next::Nothing);
        assert_eq!(standing(std::slice::from_ref(&begun), "a", 15), Some(Standing::Begun { at: 10 }));
        assert_eq!(standing(std::slice::from_ref(&begun), "b", 15), Some(Standing::Filtered));
        let tried = [begun.clone(), retry.clone()];
        assert_eq!(standing(&tried, "a", 500), Some(Standing::Waits { due_at: 1020 }));
        assert_eq!(standing(&tried, "a", 500_000), Some(Standing::Elsewhere { due_at: 1020 }));
        let settled = Some(Standing::Settled { skipped: false, attempts: 2, at: 1030 });
        assert_eq!(standing(&[begun.clone(), done.clone(), retry], "a", 500_000), settled, "in the order of time");
        assert_eq!(standing(&[begun.clone(), done, begun], "a", 500_000), settled, "a repetition changes nothing");
    }

    #[test]
    fn what_happened_in_one_moment_is_told_in_its_order() {
        let (begun, done) = (received(10, &[]), attempted(10, "a", 1, Recorded::Done, Next::Nothing));
        let retried = attempted(10, "a", 2, Recorded::Done, Next::Nothing);
        let timelines = Timeline::of(vec![retried.clone(), done.clone(), begun.clone()]);
        assert_eq!(timelines[0].records, [begun, done, retried]);
    }

    #[test]
    fn events_of_the_same_id_from_other_sources_are_other_events() {
        let mut other = received(5, &[]);
        other.source = "bank".into();
        let timelines = Timeline::of(vec![received(10, &[]), other]);
        assert_eq!(timelines.len(), 2);
        assert_eq!(timelines[0].subject.as_deref(), Some("4711"));
        assert!(timelines[0].has_beginning());
    }
}
