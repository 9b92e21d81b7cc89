//! Accounts for each event at each plugin that wanted it: done, by the journal, or a dead letter, by the queue.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::soak::load::Published;
use crate::soak::plugins::KINDS;
use crate::soak::{SoakEnvironment, json_lines};

/// Time range of the journal query, longer than any soak.
const SINCE: &str = "25h";

/// Counts by plugin.
pub(super) struct Account(BTreeMap<&'static str, EventCounts>);

#[derive(Default)]
struct EventCounts {
    published: usize,
    done: usize,
    dead: usize,
    /// Confirmed events that are neither done nor dead letters, and a few of their ids in the next field.
    missing: usize,
    some_missing: Vec<String>,
}

impl Account {
    pub(super) fn draw(place: &SoakEnvironment, published: &[Published]) -> anyhow::Result<Self> {
        let letters = json_lines(&mut place.host(&["dead-letters", "list", "--json"]))?;
        let mut lines = BTreeMap::new();
        for kind in &KINDS {
            let events =
                ["events", "--plugin", kind.name, "--outcome", "done", "--outcome", "skipped", "--since", SINCE];
            let events = json_lines(place.host(&events).arg("--json"))?;
            let done: HashSet<_> = events.iter().filter_map(|event| event["id"].as_str()).collect();
            let dead = letters.iter().filter(|letter| letter["plugin"] == kind.name);
            let dead: HashSet<_> = dead.filter_map(|letter| letter["event_id"].as_str()).collect();
            lines.insert(kind.name, line(published, kind.wants, &done, &dead));
        }
        Ok(Self(lines))
    }

    pub(super) fn is_whole(&self) -> bool {
        !self.0.is_empty() && self.0.values().all(|line| line.missing == 0 && line.published > 0)
    }
}

fn line(published: &[Published], wants: Option<&str>, done: &HashSet<&str>, dead: &HashSet<&str>) -> EventCounts {
    const SHOWN_MAX: usize = 3;
    let mut line = EventCounts::default();
    for event in published.iter().filter(|event| wants.is_none_or(|wants| event.routing_key == wants)) {
        line.published += 1;
        match (done.contains(&*event.id), dead.contains(&*event.id)) {
            (true, _) => line.done += 1,
            (false, true) => line.dead += 1,
            (false, false) => {
                line.missing += 1;
                if line.some_missing.len() < SHOWN_MAX {
                    line.some_missing.push(event.id.clone());
                }
            }
        }
    }
    line
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12}{:>10}{:>10}{:>14}{:>10}", "plugin", "published", "done", "dead letters", "missing")?;
        for (name, line) in &self.0 {
            let EventCounts { published, done, dead, missing, some_missing } = line;
            write!(f, "\n{name:<12}{published:>10}{done:>10}{dead:>14}{missing:>10}  {}", some_missing.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_done_nor_dead_is_missing() {
        let published =
            |id: &str, routing_key: &str| Published { id: id.to_owned(), routing_key: routing_key.to_owned() };
        let all = [published("1", "order.paid"), published("2", "order.paid"), published("3", "order.created")];
        let line = line(&all, Some("order.paid"), &HashSet::from(["1", "3"]), &HashSet::new());
        assert_eq!((line.published, line.done, line.dead, line.missing), (2, 1, 0, 1));
        assert_eq!(line.some_missing, ["2"]);
        let account = |line| Account(BTreeMap::from([("webhook", line)]));
        assert!(!account(line).is_whole());
        let whole = super::line(&all[..1], None, &HashSet::new(), &HashSet::from(["1"]));
        assert!(account(whole).is_whole());
        assert!(!account(EventCounts::default()).is_whole(), "nothing was published");
    }
}
