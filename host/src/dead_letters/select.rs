//! Which dead letters are meant.

use std::time::Duration;

use broker::topic_matches;
use clap::Args;

use crate::config::parse_duration;
use crate::dead_letters::letter::Summary;
use crate::delivery::clock::between;

/// All that are given must match.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Selection {
    /// Of this plugin
    #[arg(long, value_name = "NAME")]
    pub(super) plugin: Option<String>,
    /// Of this event type; `*` stands for a word, `#` for any number of them
    #[arg(long, value_name = "PATTERN")]
    pub(super) event_type: Option<String>,
    /// Whose code or reason contains this text
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// That were last tried longer ago than this, e.g. 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) older_than: Option<Duration>,
    /// That were last tried within this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) newer_than: Option<Duration>,
    /// By the letter's id, or the beginning of it, or the event's id
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
}

impl Selection {
    pub(super) fn of_id(id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..Self::default() }
    }

    /// Nothing is said: all are meant.
    pub(super) fn is_empty(&self) -> bool {
        let Self { plugin, event_type, reason, older_than, newer_than, id } = self;
        let texts = [plugin, event_type, reason, id];
        texts.iter().all(|text| text.is_none()) && older_than.is_none() && newer_than.is_none()
    }

    /// `now` in milliseconds since 1970.
    pub(super) fn matches(&self, letter: &Summary, now: i64) -> bool {
        let is = |wanted: &Option<String>, matches: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(matches);
        let age = between(letter.last_at_millis, now);
        is(&self.plugin, &|plugin| letter.plugin.as_deref() == Some(plugin))
            && is(&self.event_type, &|pattern| {
                letter.event_type.as_deref().is_some_and(|event_type| topic_matches(pattern, event_type))
            })
            && is(&self.reason, &|text| letter.code.contains(text) || letter.reason.contains(text))
            && is(&self.id, &|id| letter.id.starts_with(id) || letter.event_id.as_deref() == Some(id))
            && self.older_than.is_none_or(|limit| age > limit)
            && self.newer_than.is_none_or(|limit| age <= limit)
    }
}

#[cfg(test)]
mod tests {
    use broker::Message;

    use super::*;
    use crate::delivery::{Fault, Recipient, Trail};

    const HOUR: i64 = 3_600_000;

    fn letter() -> Summary {
        let trail = Trail {
            recipient: Some(Recipient {
                plugin: "email".to_owned(),
                event_id: "4711".to_owned(),
                event_type: "order.created".to_owned(),
                idempotency_key: "key".to_owned(),
            }),
            attempts: 8,
            fault: Some(Fault::new("timed-out", "it passed its time limit")),
            given_up: Some("attempts-used-up".to_owned()),
            first_at: 0,
            last_at: HOUR,
            round: 1,
            round_at: 0,
            history: Vec::new(),
            replaces: None,
            exchange: "orders".to_owned(),
            routing_key: "order.created".to_owned(),
        };
        Summary::new(&trail, &Message::json("{}"))
    }

    #[test]
    fn all_that_is_given_must_match() {
        let text = |text: &str| Some(text.to_owned());
        let all = Selection::default;
        let hours = |hours| Some(Duration::from_hours(hours));
        for (selection, matches) in [
            (all(), true),
            (Selection { plugin: text("email"), ..all() }, true),
            (Selection { plugin: text("mail"), ..all() }, false),
            (Selection { event_type: text("order.*"), ..all() }, true),
            (Selection { event_type: text("order"), ..all() }, false),
            (Selection { reason: text("timed"), ..all() }, true),
            (Selection { reason: text("time limit"), ..all() }, true),
            (Selection { reason: text("trapped"), ..all() }, false),
            (Selection { id: text("4711"), ..all() }, true),
            (Selection { id: text("471"), ..all() }, false),
            (Selection { id: Some(letter().id[..4].to_owned()), ..all() }, true),
            (Selection { older_than: hours(1), ..all() }, true),
            (Selection { older_than: hours(2), ..all() }, false),
            (Selection { newer_than: hours(2), ..all() }, true),
            (Selection { newer_than: hours(1), ..all() }, false),
            (Selection { plugin: text("email"), reason: text("trapped"), ..all() }, false),
        ] {
            assert_eq!(selection.matches(&letter(), 3 * HOUR), matches, "{selection:?}");
        }
        assert!(all().is_empty());
        assert!(!Selection { newer_than: hours(1), ..all() }.is_empty());
    }
}
