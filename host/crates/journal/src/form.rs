//! The form of records in a chunk: numbers, in eight bytes each, and texts, each after its length. A change of it is a new
//! [`super::store`] version.
//!
//! It is not small, for chunks are packed. But little code writes it, and what runs once an event costs by its code, which is
//! seldom in the processor's caches: postcard's form, whose numbers have as many bytes as they need, took two thirds longer.

#![expect(clippy::inline_always, reason = "where it is known what happened, most of this goes away")]

use delivery::{Next, Rule};

pub(crate) use crate::record::{Attempted, Line, Received, Record, Recorded, Routed, SpillReason, Then, What};

/// How an entry begins: with a record, or with what happened next to the event of the record before it.
const RECORD: u64 = 0;
const THEN: u64 = 1;

const RECEIVED: u64 = 0;
const DUPLICATE: u64 = 1;
const SPILLED: u64 = 2;
const ATTEMPTED: u64 = 3;
const UNDECODABLE: u64 = 4;
const DECLINED: u64 = 5;

/// A list that is written as its items come.
pub trait List<Item>: ExactSizeIterator<Item = Item> + Clone {}
impl<Item, Items: ExactSizeIterator<Item = Item> + Clone> List<Item> for Items {}

/// Writes at the end of what is there.
pub(super) struct Pen<'c>(pub(super) &'c mut Vec<u8>);

impl<'r> Pen<'_> {
    /// A record, and perhaps what happened next.
    #[inline(always)]
    pub(super) fn record<Routes: List<Routed<&'r str>>, Lines: List<Line<&'r str>>>(
        &mut self,
        record: &Record<&'r str, Routes, Lines>,
        then: Option<&Then<&'r str, Routes, Lines>>,
    ) {
        let Record { at, id, source, event_type, what } = record;
        self.part(&[RECORD, at.cast_unsigned()], &[Some(id), Some(source), Some(event_type)]);
        self.what(what);
        if let Some(then) = then {
            self.part(&[THEN, then.at.cast_unsigned()], &[]);
            self.what(&then.what);
        }
    }

    #[inline(always)]
    fn what(&mut self, what: &What<&'r str, impl List<Routed<&'r str>>, impl List<Line<&'r str>>>) {
        match what {
            What::Received(received) => self.received(received),
            What::Duplicate => self.part(&[DUPLICATE], &[]),
            What::Spilled { plugin, why } => self.part(&[SPILLED], &[Some(plugin), Some(why.as_str())]),
            What::Declined { plugin, why } => self.part(&[DECLINED], &[Some(plugin), Some(why)]),
            What::Attempted(attempted) => self.attempted(attempted),
            What::Undecodable { code, reason, exchange, routing_key, bytes } => {
                self.part(&[UNDECODABLE, *bytes], &[code, reason, exchange, routing_key].map(|text| Some(*text)));
            }
        }
    }

    #[inline(always)]
    fn received(&mut self, received: &Received<&'r str, impl List<Routed<&'r str>>>) {
        let Received { subject, time, exchange, routing_key, redelivered, bytes, routed, not_subscribed } = received;
        let routed = routed.clone();
        self.part(
            &[RECEIVED, (*redelivered).into(), *bytes, (*not_subscribed).into(), routed.len() as u64],
            &[*subject, *time, Some(exchange), Some(routing_key)],
        );
        for Routed { plugin, rule } in routed {
            let (number, text) = match rule {
                Rule::Everything => (0, None),
                Rule::Subscription(text) => (1, Some(text)),
                Rule::Filtered(text) => (2, Some(text)),
                Rule::AboutItself => (3, None),
                Rule::NotYetRouted => (4, None),
            };
            self.part(&[number], &[Some(plugin), text]);
        }
    }

    #[inline(always)]
    fn attempted(&mut self, attempted: &Attempted<&'r str, impl List<Line<&'r str>>>) {
        let log = attempted.log.clone();
        let (outcome, code) = match attempted.outcome {
            Recorded::Done => (0, None),
            Recorded::Skipped => (1, None),
            Recorded::Retry(code) => (2, Some(code)),
            Recorded::Reject(code) => (3, Some(code)),
            Recorded::Misconfigured => (4, None),
        };
        let (next, at, why) = match attempted.next {
            Next::Nothing => (0, 0, None),
            Next::Attempt(at) => (1, at, None),
            Next::DeadLetter(why) => (2, 0, Some(why)),
            Next::Held => (3, 0, None),
            Next::Unsettled => (4, 0, None),
        };
        self.part(
            &[
                ATTEMPTED,
                attempted.number.into(),
                attempted.max.into(),
                attempted.round.into(),
                attempted.first_at.cast_unsigned(),
                attempted.took_micros,
                outcome,
                next,
                at.cast_unsigned(),
                attempted.log_beyond,
                log.len() as u64,
            ],
            &[Some(attempted.plugin), code, attempted.reason, why],
        );
        for Line { level, message, fields } in log {
            self.part(&[], &[Some(level), Some(message), fields]);
        }
    }

    /// The length of a text is one more than it has bytes; 0 stands for none. One of 4 GiB, which no broker takes, is none, too.
    // Once, and not wherever it is called: see above.
    #[inline(never)]
    fn part(&mut self, numbers: &[u64], texts: &[Option<&str>]) {
        let Self(bytes) = self;
        for number in numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for text in texts {
            let written = text.and_then(|text| Some((text, u32::try_from(text.len()).ok()?.checked_add(1)?)));
            let (text, length) = written.unwrap_or_default();
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
}

/// The records of a chunk; those before the first that makes no sense.
pub(super) fn records(bytes: &[u8]) -> Vec<Record> {
    let mut sheet = Sheet(bytes);
    let mut records = Vec::new();
    while let Some(record) = sheet.record(records.last()) {
        records.push(record);
    }
    records
}

/// Reads from the beginning of what is left. `None`: it makes no sense.
struct Sheet<'b>(&'b [u8]);

impl Sheet<'_> {
    fn record(&mut self, last: Option<&Record>) -> Option<Record> {
        let [kind, at] = self.numbers()?;
        let (id, source, event_type) = match kind {
            RECORD => (self.text()?, self.text()?, self.text()?),
            THEN => {
                last.map(|Record { id, source, event_type, .. }| (id.clone(), source.clone(), event_type.clone()))?
            }
            _ => return None,
        };
        Some(Record { at: at.cast_signed(), id, source, event_type, what: self.what()? })
    }

    fn what(&mut self) -> Option<What> {
        let [kind] = self.numbers()?;
        Some(match kind {
            RECEIVED => What::Received(self.received()?),
            DUPLICATE => What::Duplicate,
            SPILLED => {
                let (plugin, why) = (self.text()?, self.text()?);
                What::Spilled { plugin, why: SpillReason::ALL.iter().copied().find(|known| known.as_str() == &*why)? }
            }
            DECLINED => What::Declined { plugin: self.text()?, why: self.text()? },
            ATTEMPTED => What::Attempted(self.attempted()?),
            UNDECODABLE => {
                let [bytes] = self.numbers()?;
                let (code, reason, exchange, routing_key) = (self.text()?, self.text()?, self.text()?, self.text()?);
                What::Undecodable { code, reason, exchange, routing_key, bytes }
            }
            _ => return None,
        })
    }

    fn received(&mut self) -> Option<Received> {
        let [redelivered, bytes, not_subscribed, routed] = self.numbers()?;
        Some(Received {
            subject: self.text_or_none()?,
            time: self.text_or_none()?,
            exchange: self.text()?,
            routing_key: self.text()?,
            redelivered: redelivered != 0,
            bytes,
            routed: (0..routed).map(|_| self.routed()).collect::<Option<_>>()?,
            not_subscribed: not_subscribed.try_into().ok()?,
        })
    }

    fn routed(&mut self) -> Option<Routed> {
        let [number] = self.numbers()?;
        let (plugin, text) = (self.text()?, self.text_or_none()?);
        let rule = match (number, text) {
            (0, None) => Rule::Everything,
            (1, Some(text)) => Rule::Subscription(text),
            (2, Some(text)) => Rule::Filtered(text),
            (3, None) => Rule::AboutItself,
            (4, None) => Rule::NotYetRouted,
            _ => return None,
        };
        Some(Routed { plugin, rule })
    }

    fn attempted(&mut self) -> Option<Attempted> {
        let [number, max, round, first_at, took_micros, outcome, next, next_at, log_beyond, log] = self.numbers()?;
        let (plugin, code, reason, why) =
            (self.text()?, self.text_or_none()?, self.text_or_none()?, self.text_or_none()?);
        Some(Attempted {
            plugin,
            number: number.try_into().ok()?,
            max: max.try_into().ok()?,
            round: round.try_into().ok()?,
            first_at: first_at.cast_signed(),
            took_micros,
            outcome: match (outcome, code) {
                (0, None) => Recorded::Done,
                (1, None) => Recorded::Skipped,
                (2, Some(code)) => Recorded::Retry(code),
                (3, Some(code)) => Recorded::Reject(code),
                (4, None) => Recorded::Misconfigured,
                _ => return None,
            },
            reason,
            next: match (next, why) {
                (0, None) => Next::Nothing,
                (1, None) => Next::Attempt(next_at.cast_signed()),
                (2, Some(why)) => Next::DeadLetter(why),
                (3, None) => Next::Held,
                (4, None) => Next::Unsettled,
                _ => return None,
            },
            log: (0..log).map(|_| self.line()).collect::<Option<_>>()?,
            log_beyond,
        })
    }

    fn line(&mut self) -> Option<Line> {
        Some(Line { level: self.text()?, message: self.text()?, fields: self.text_or_none()? })
    }

    fn numbers<const COUNT: usize>(&mut self) -> Option<[u64; COUNT]> {
        let mut numbers = [0; COUNT];
        for number in &mut numbers {
            let (bytes, rest) = self.0.split_first_chunk()?;
            (*number, self.0) = (u64::from_le_bytes(*bytes), rest);
        }
        Some(numbers)
    }

    fn text(&mut self) -> Option<Box<str>> {
        self.text_or_none()?
    }

    #[expect(clippy::option_option, reason = "the outer one says whether it makes sense")]
    fn text_or_none(&mut self) -> Option<Option<Box<str>>> {
        let (length, rest) = self.0.split_first_chunk()?;
        let length = u32::from_le_bytes(*length);
        let (text, rest) = rest.split_at_checked(length.saturating_sub(1) as usize)?;
        self.0 = rest;
        Some(if length == 0 { None } else { Some(str::from_utf8(text).ok()?.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of every kind, as they are written or as they are read.
    fn samples<T: From<&'static str>, Routes, Lines>(
        routes: impl Fn(Vec<Routed<T>>) -> Routes,
        lines: impl Fn(Vec<Line<T>>) -> Lines,
    ) -> Vec<Record<T, Routes, Lines>> {
        let received = |subject: Option<&'static str>, rules: Vec<Rule<T>>| {
            What::Received(Received {
                subject: subject.map(T::from),
                time: subject.map(|_| "2026-11-24T10:00:00Z".into()),
                exchange: "".into(),
                routing_key: "ordér.created".into(),
                redelivered: subject.is_none(),
                bytes: u64::MAX,
                routed: routes(rules.into_iter().map(|rule| Routed { plugin: "mailer".into(), rule }).collect()),
                not_subscribed: 7,
            })
        };
        let attempted = |outcome, next, log: &[Option<&'static str>]| {
            let line = |fields: Option<&'static str>| Line {
                level: "info".into(),
                message: "sent".into(),
                fields: fields.map(T::from),
            };
            What::Attempted(Attempted {
                plugin: "mailer".into(),
                number: 2,
                max: u32::MAX,
                round: 3,
                first_at: -5,
                took_micros: 70,
                outcome,
                reason: (!log.is_empty()).then(|| "it is so".into()),
                next,
                log: lines(log.iter().copied().map(line).collect()),
                log_beyond: 9,
            })
        };
        let code = || "http-503".into();
        let whats = [
            received(None, vec![]),
            received(Some(""), vec![Rule::Everything, Rule::Subscription("s".into()), Rule::AboutItself]),
            received(Some(""), vec![Rule::NotYetRouted]),
            received(Some("4711"), vec![Rule::Filtered("its filter".into())]),
            What::Duplicate,
            What::Declined { plugin: "mailer".into(), why: "it subscribes to other events".into() },
            attempted(Recorded::Done, Next::Nothing, &[]),
            attempted(Recorded::Skipped, Next::Unsettled, &[None]),
            attempted(Recorded::Retry(code()), Next::Attempt(i64::MAX), &[Some("{}"), None]),
            attempted(Recorded::Reject(code()), Next::DeadLetter("rejected".into()), &[Some("")]),
            attempted(Recorded::Misconfigured, Next::Held, &[]),
            What::Undecodable {
                code: code(),
                reason: "no JSON".into(),
                exchange: "orders".into(),
                routing_key: "".into(),
                bytes: 3,
            },
        ];
        let spilled = SpillReason::ALL.iter().map(|why| What::Spilled { plugin: "mailer".into(), why: *why });
        let records = whats.into_iter().chain(spilled);
        let records =
            records.map(|what| Record { at: 5, id: "1".into(), source: "".into(), event_type: "t".into(), what });
        records.collect()
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in samples::<&str, _, _>(Vec::into_iter, Vec::into_iter) {
            Pen(&mut bytes).record(&record, None);
        }
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(records(&written()), samples(|routes| routes, |lines| lines));
    }

    #[test]
    fn what_happened_next_is_of_the_same_event() {
        let lent = samples::<&str, _, _>(Vec::into_iter, Vec::into_iter);
        let mut bytes = Vec::new();
        for record in &lent {
            Pen(&mut bytes).record(&lent[0], Some(&Then { at: 8, what: record.what.clone() }));
        }
        let owned: Vec<Record> = samples(|routes| routes, |lines| lines);
        let both = owned.iter().flat_map(|then| [owned[0].clone(), Record { at: 8, ..then.clone() }]);
        assert_eq!(records(&bytes), both.collect::<Vec<_>>());
        assert_eq!(records(&bytes[bytes.len() - 16..]), [], "of no event");
    }

    #[test]
    fn wherever_it_is_torn_what_was_before_is_read() {
        let (written, whole) = (written(), records(&written()));
        for length in 0..written.len() {
            let read = records(&written[..length]);
            assert_eq!(read, whole[..read.len()]);
            assert!(read.len() < whole.len());
        }
    }

    #[test]
    fn whatever_it_says_it_is_read_or_refused() {
        let (written, mut random) = (written(), fastrand::Rng::with_seed(1));
        for _ in 0..5_000 {
            let mut damaged = written.clone();
            damaged[random.usize(..written.len())] = random.u8(..);
            // The numbers of items, too, and lengths of texts.
            records(&damaged);
        }
    }
}
