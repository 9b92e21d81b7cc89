//! A record is one thing that happened to one event. How it is written is in `form`.
//!
//! Who reads records owns their texts and lists. Who writes one lends them for as long as that takes, a list as what
//! yields its items, so that nothing is copied on the way of an event.

pub use delivery::{Next, Recorded, Rule};
pub use telemetry::metrics::SpillReason;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<Text = Box<str>, Routes = Vec<Routed<Text>>, Lines = Vec<Line<Text>>> {
    /// Milliseconds since 1970.
    pub at: i64,
    /// Of the event; for a message that is none, of its body.
    pub id: Text,
    /// The id is unique within it.
    pub source: Text,
    pub event_type: Text,
    pub what: What<Text, Routes, Lines>,
}

impl Record {
    /// By which records of one event are in the order in which that happened, as far as a clock of milliseconds knows:
    /// what calls and hosts do side by side is not written in order.
    pub fn order(&self) -> impl Ord + use<> {
        let (rank, round, number) = match &self.what {
            What::Received(_) | What::Undecodable { .. } => (0, 0, 0),
            What::Duplicate => (1, 0, 0),
            What::Spilled { .. } => (2, 0, 0),
            What::Declined { .. } => (3, 0, 0),
            What::Attempted(attempted) => (4, attempted.round, attempted.number),
        };
        (self.at, rank, round, number)
    }
}

/// What happened next to the same event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Then<Text = Box<str>, Routes = Vec<Routed<Text>>, Lines = Vec<Line<Text>>> {
    /// Milliseconds since 1970.
    pub at: i64,
    pub what: What<Text, Routes, Lines>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What<Text = Box<str>, Routes = Vec<Routed<Text>>, Lines = Vec<Line<Text>>> {
    Received(Received<Text, Routes>),
    /// It came again, and was not delivered.
    Duplicate,
    Spilled {
        plugin: Text,
        why: SpillReason,
    },
    /// It waited in the plugin's queue, not yet routed, and the plugin does not want it.
    Declined {
        plugin: Text,
        /// By which subscriptions or filter.
        why: Text,
    },
    Attempted(Attempted<Text, Lines>),
    /// The message is no event, and lies with the dead letters.
    Undecodable {
        code: Text,
        reason: Text,
        exchange: Text,
        routing_key: Text,
        bytes: u64,
    },
}

/// How it came, and who gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received<Text = Box<str>, Routes = Vec<Routed<Text>>> {
    pub subject: Option<Text>,
    pub time: Option<Text>,
    pub exchange: Text,
    pub routing_key: Text,
    /// The broker has offered it before.
    pub redelivered: bool,
    pub bytes: u64,
    /// The plugins whose subscriptions match.
    pub routed: Routes,
    /// Plugins whose subscriptions do not match.
    pub not_subscribed: u32,
}

/// What routing said of one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed<Text = Box<str>> {
    pub plugin: Text,
    pub rule: Rule<Text>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted<Text = Box<str>, Lines = Vec<Line<Text>>> {
    pub plugin: Text,
    /// From 1, in its round.
    pub number: u32,
    pub max: u32,
    /// From 1; each replay of a dead letter begins a new one.
    pub round: u32,
    /// When the round began, in milliseconds since 1970: on another host, perhaps.
    pub first_at: i64,
    pub took_micros: u64,
    pub outcome: Recorded<Text>,
    /// What the plugin or the host says of it.
    pub reason: Option<Text>,
    pub next: Next<Text>,
    /// What the plugin logged: the first few lines.
    pub log: Lines,
    /// Lines that it logged after these.
    pub log_beyond: u64,
}

/// What a plugin logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<Text = Box<str>> {
    pub level: Text,
    pub message: Text,
    /// As a JSON object.
    pub fields: Option<Text>,
}

impl Line {
    /// As the host's log has it.
    pub fn text(&self) -> String {
        match &self.fields {
            Some(fields) => [&*self.message, " ", fields].concat(),
            None => self.message.to_string(),
        }
    }
}

/// As one has it who writes it.
#[cfg(test)]
pub(super) type Lent<'r> = Record<&'r str, std::vec::IntoIter<Routed<&'r str>>, std::vec::IntoIter<Line<&'r str>>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_moment_the_coming_is_first_and_the_last_attempt_last() {
        let attempted = |round, number| {
            What::Attempted(Attempted {
                plugin: "a".into(),
                number,
                max: 8,
                round,
                first_at: 0,
                took_micros: 5,
                outcome: Recorded::Skipped,
                reason: None,
                next: Next::Nothing,
                log: Vec::new(),
                log_beyond: 0,
            })
        };
        let whats = [
            What::Duplicate,
            What::Spilled { plugin: "a".into(), why: SpillReason::ALL[0] },
            What::Declined { plugin: "a".into(), why: "no".into() },
            attempted(1, 1),
            attempted(1, 2),
            attempted(2, 1),
        ];
        let record = |at, what| Record { at, id: "1".into(), source: "s".into(), event_type: "t".into(), what };
        let records: Vec<_> =
            whats.into_iter().map(|what| record(5, what)).chain([record(6, What::Duplicate)]).collect();
        let mut sorted: Vec<_> = records.iter().rev().cloned().collect();
        sorted.sort_by_key(Record::order);
        assert_eq!(sorted, records);
    }

    #[test]
    fn the_text_of_a_line_has_its_fields() {
        let mut line = Line { level: "info".into(), message: "sent".into(), fields: None };
        assert_eq!(line.text(), "sent");
        line.fields = Some(r#"{"status":"200"}"#.into());
        assert_eq!(line.text(), r#"sent {"status":"200"}"#);
    }
}
