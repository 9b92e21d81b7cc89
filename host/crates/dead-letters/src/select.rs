//! Selects dead letters.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use broker::topic_matches;
use event::clock::between;

use crate::letter::Summary;

/// Criteria for dead letters. A letter must meet all that are set. No text may be empty: it would match every
/// letter, so an empty variable in a script would delete them all.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The plugin's name.
    pub plugin: Option<String>,
    /// A pattern for the event type: `*` stands for one word, `#` for any number of words.
    pub event_type: Option<String>,
    /// Text that the code must contain.
    pub code: Option<String>,
    /// Text that the code or the reason must contain.
    pub reason: Option<String>,
    /// Minimum time since the last attempt.
    pub older_than: Option<Duration>,
    /// Maximum time since the last attempt.
    pub newer_than: Option<Duration>,
    /// The event's id, the letter's id, or the beginning of the letter's id.
    pub id: Option<String>,
    /// Maximum number of letters. The ones that died first are kept.
    pub limit: Option<NonZeroUsize>,
}

/// The letters that an id stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum IdMatch {
    /// All letters of the event with this id.
    Event,
    /// One letter, with its full id.
    Letter(String),
    Nothing,
    /// Several letters have ids that begin with it.
    Several(Vec<String>),
}

impl IdMatch {
    /// Resolves an id. An event's id takes precedence, because it may look like the beginning of some letter's
    /// id.
    pub(super) fn by<'a>(id: &str, letters: impl Iterator<Item = &'a Summary>) -> Self {
        let mut begin_with_it = BTreeSet::new();
        for letter in letters {
            if letter.event_id.as_deref() == Some(id) {
                return Self::Event;
            }
            if letter.id.starts_with(id) {
                begin_with_it.insert(letter.id.clone());
            }
        }
        match begin_with_it.len() {
            0 => Self::Nothing,
            1 => begin_with_it.pop_first().map_or(Self::Nothing, Self::Letter),
            _ => Self::Several(begin_with_it.into_iter().collect()),
        }
    }

    pub(super) fn includes(&self, id: &str, letter: &Summary) -> bool {
        match self {
            Self::Event => letter.event_id.as_deref() == Some(id),
            Self::Letter(id) => letter.id == *id,
            Self::Nothing | Self::Several(_) => false,
        }
    }
}

impl Selection {
    /// Selects by plugin, and by a text in the code or the reason.
    pub fn of(plugin: Option<String>, reason: Option<String>) -> Self {
        Self { plugin, reason, ..Self::default() }
    }

    pub fn of_id(id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..Self::default() }
    }

    /// Returns whether no criterion is set, so that all letters match. A limit alone selects no letters in
    /// particular and does not count.
    pub fn is_empty(&self) -> bool {
        let Self { plugin, event_type, code, reason, older_than, newer_than, id, limit: _ } = self;
        let texts = [plugin, event_type, code, reason, id];
        texts.iter().all(|text| text.is_none()) && older_than.is_none() && newer_than.is_none()
    }

    /// Returns whether the letter matches. `now` is in milliseconds since 1970. A letter of unknown age is
    /// neither old nor new. An id can only be resolved over all letters together; see [`IdMatch`].
    pub(super) fn matches(&self, letter: &Summary, now: i64) -> bool {
        let is = |wanted: &Option<String>, matches: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(matches);
        let age = letter.last_at_millis.map(|last_at| between(last_at, now));
        is(&self.plugin, &|plugin| letter.plugin.as_deref() == Some(plugin))
            && is(&self.event_type, &|pattern| {
                letter.event_type.as_deref().is_some_and(|event_type| topic_matches(pattern, event_type))
            })
            && is(&self.code, &|text| letter.code.contains(text))
            && is(&self.reason, &|text| letter.code.contains(text) || letter.reason.contains(text))
            && is(&self.id, &|id| letter.id.starts_with(id) || letter.event_id.as_deref() == Some(id))
            && self.older_than.is_none_or(|limit| age.is_some_and(|age| age > limit))
            && self.newer_than.is_none_or(|limit| age.is_some_and(|age| age <= limit))
    }
}

#[cfg(test)]
mod tests {
    use broker::Message;
    use delivery::{DeliveryHeaders, Fault, Recipient};

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn letter() -> Summary {
        Summary::new(&delivery_headers(), &Message::json("{}"))
    }

    fn delivery_headers() -> DeliveryHeaders {
        DeliveryHeaders {
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
            trace: None,
            not_yet_routed: false,
            exchange: "orders".to_owned(),
            routing_key: "order.created".to_owned(),
        }
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
            (Selection { code: text("timed"), ..all() }, true),
            (Selection { code: text("limit"), ..all() }, false),
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
        assert!(Selection { limit: NonZeroUsize::new(5), ..all() }.is_empty());
    }

    #[test]
    fn a_letter_of_unknown_age_is_neither_old_nor_new() {
        let unknown = Summary { last_at_millis: None, ..letter() };
        let (hour, all) = (Some(Duration::from_hours(1)), Selection::default);
        assert!(all().matches(&unknown, HOUR));
        assert!(!Selection { older_than: hour, ..all() }.matches(&unknown, HOUR));
        assert!(!Selection { newer_than: hour, ..all() }.matches(&unknown, HOUR));
    }

    #[test]
    fn an_id_stands_for_an_event_or_for_one_letter_only() {
        let letters: Vec<_> = [("aa11", "4711"), ("aa22", "4711"), ("4711bb", "other"), ("cc", "x"), ("cc", "x")]
            .map(|(id, event)| Summary { id: id.to_owned(), event_id: Some(event.to_owned()), ..letter() })
            .into();
        let meant = |id| IdMatch::by(id, letters.iter());
        assert_eq!(meant("4711"), IdMatch::Event, "though a letter's id begins with it");
        assert_eq!(meant("4711b"), IdMatch::Letter("4711bb".to_owned()));
        assert_eq!(meant("aa"), IdMatch::Several(vec!["aa11".to_owned(), "aa22".to_owned()]));
        assert_eq!(meant("c"), IdMatch::Letter("cc".to_owned()), "copies of one letter are not two");
        assert_eq!(meant("zz"), IdMatch::Nothing);
        let included = |id| letters.iter().filter(|letter| meant(id).includes(id, letter)).count();
        assert_eq!((included("4711"), included("aa2"), included("aa")), (2, 1, 0));
    }

    #[test]
    fn rounds_of_one_delivery_are_different_letters() {
        let first = letter();
        let delivery_headers = DeliveryHeaders { last_at: 2 * HOUR, ..delivery_headers() };
        assert_ne!(Summary::new(&delivery_headers, &Message::json("{}")).id, first.id);
        assert_eq!(letter().id, first.id);
    }
}
