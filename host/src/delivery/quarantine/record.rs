//! What a host remembers of messages that may have broken it, and what it concludes. Pure: it has no clock and no file.
//!
//! A message is convicted on evidence only. Evidence is a session that ended in a way that a message can cause, while
//! one message that the broker had offered before was the only one in hand.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::delivery::quarantine::fingerprint::Fingerprint;

/// How often a message that is alone in hand has to run the machine out of memory. Once may be another program's doing.
const OUT_OF_MEMORY_MAX: u32 = 2;
/// How often in a row a session has to end without a known cause while a message is alone in hand. Kills and cut
/// connections come in series, so this is many.
const UNEXPLAINED_MAX: u32 = 20;
/// Short sessions in a row that ended without a known cause. From there on messages are suspected.
const UNEXPLAINED_SUSPICIOUS: u32 = 3;
/// How long a suspect is alone in hand at most; doubled by each break in a row.
const ALONE_MIN: Duration = Duration::from_millis(500);
const ALONE_DOUBLINGS_MAX: u32 = 6;
/// How long after a break messages that come again are suspects. A plugin's queue may not be served before.
const CAUTION_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// Suspects that are remembered, and for how long: another host may have settled them.
const REMEMBERED_MAX: usize = 256;
const REMEMBERED_MILLIS: i64 = 7 * 24 * 60 * 60 * 1000;

/// How a session, or the process with it, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// In good order.
    Stopped,
    /// The whole machine was started anew, which no message does.
    MachineRestarted,
    /// In a way that a message can cause; which, as the subject and verb of a sentence.
    Broken(String),
    /// The system killed a process because memory was used up.
    OutOfMemory,
    /// A kill from outside, the network, the broker's own end, or anything else.
    Unexplained,
}

/// In what form a convicted message goes to the dead letters. Each is tried after the one before has broken the
/// session, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum Form {
    Whole,
    /// Its headers and properties in one header, as text.
    PropertiesAsText,
    BodyOnly,
}

/// Why a message is not handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conviction {
    pub(super) form: Form,
    /// As the subject and verb of a sentence.
    pub(super) cause: String,
    /// How often a session ended with this message alone in hand.
    pub(super) count: u32,
    /// When it did so last, in milliseconds since 1970.
    pub(super) at: i64,
}

/// All of one host. Times are in milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    suspects: BTreeMap<Fingerprint, Suspect>,
    /// Suspects that were in hand together at a break, the one that was taken last first.
    together: Vec<Fingerprint>,
    /// Sessions in a row that ended in a way that a message can cause, none of them long.
    breaks: u32,
    /// Short ones in a row that ended without a known cause.
    unexplained: u32,
    last_break_at: Option<i64>,
    /// The session has gone on for so long that its end is no part of a series.
    is_long: bool,
    /// In this session.
    taken: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Suspect {
    in_hand: Option<InHand>,
    broke: u32,
    out_of_memory: u32,
    unexplained: u32,
    /// How often the session broke while this was being put to the dead letters.
    forms_broken: u32,
    cause: String,
    at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct InHand {
    number: u64,
    is_alone: bool,
    /// It is convicted, and on its way to the dead letters.
    is_set_aside: bool,
}

impl Suspect {
    fn is_blamed(&self) -> bool {
        self.broke > 0 || self.out_of_memory > 0 || self.unexplained > 0
    }
}

impl Record {
    /// Whether messages that come again are suspects.
    pub(super) fn is_cautious(&self, now: i64) -> bool {
        let since_break = self.last_break_at.map(|at| now.saturating_sub(at));
        since_break.is_some_and(|since| since < CAUTION_MILLIS)
            || self.unexplained >= UNEXPLAINED_SUSPICIOUS
            || self.is_worth_keeping()
    }

    /// Whether there is anything that the next host should know, although this one ends in good order.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.suspects.values().any(Suspect::is_blamed)
    }

    /// How long a suspect is alone in hand at most.
    pub(super) fn alone_max(&self) -> Duration {
        let series = self.breaks.max(self.unexplained.saturating_sub(UNEXPLAINED_SUSPICIOUS));
        ALONE_MIN.saturating_mul(1 << series.saturating_sub(1).min(ALONE_DOUBLINGS_MAX))
    }

    /// Those that were in hand together at a break, in the order in which they are to be taken: the one that was taken
    /// last is the likeliest to have broken the session.
    pub(super) fn together(&self) -> &[Fingerprint] {
        &self.together
    }

    /// Whether it is suspected for ends without a known cause only. Then the session has to show that it goes on
    /// without the message before the message is taken again.
    pub(super) fn needs_a_control(&self, suspect: &Fingerprint) -> bool {
        self.suspects.get(suspect).is_some_and(|suspect| suspect.unexplained > 0)
    }

    /// Whether it is convicted.
    pub(super) fn conviction(&self, suspect: &Fingerprint) -> Option<Conviction> {
        let suspect = self.suspects.get(suspect)?;
        let is_guilty =
            suspect.broke > 0 || suspect.out_of_memory >= OUT_OF_MEMORY_MAX || suspect.unexplained >= UNEXPLAINED_MAX;
        is_guilty.then(|| Conviction {
            form: match suspect.forms_broken {
                0 => Form::Whole,
                1 => Form::PropertiesAsText,
                _ => Form::BodyOnly,
            },
            cause: suspect.cause.clone(),
            count: suspect.broke + suspect.out_of_memory + suspect.unexplained,
            at: suspect.at,
        })
    }

    /// A suspect is taken in hand. `is_alone`: nothing else is. Whether it is alone for the record.
    pub(super) fn take(&mut self, suspect: Fingerprint, is_alone: bool, is_set_aside: bool) -> bool {
        // One that was dropped unsettled, because the session is ending, was in hand before this one.
        let is_alone = is_alone && self.suspects.values().all(|suspect| suspect.in_hand.is_none());
        self.taken += 1;
        let in_hand = InHand { number: self.taken, is_alone, is_set_aside };
        self.suspects.entry(suspect).or_default().in_hand = Some(in_hand);
        is_alone
    }

    /// Others are taken, too, from now on.
    pub(super) fn accompany(&mut self, suspect: &Fingerprint) {
        if let Some(in_hand) = self.suspects.get_mut(suspect).and_then(|suspect| suspect.in_hand.as_mut()) {
            in_hand.is_alone = false;
        }
    }

    /// It is settled, and does not come again.
    pub(super) fn settle(&mut self, suspect: &Fingerprint) {
        self.suspects.remove(suspect);
        self.together.retain(|other| other != suspect);
    }

    /// It is not in hand any more, and will come again.
    pub(super) fn give_back(&mut self, suspect: &Fingerprint) {
        if let Some(found) = self.suspects.get_mut(suspect) {
            found.in_hand = None;
            if !found.is_blamed() {
                self.suspects.remove(suspect);
            }
        }
    }

    /// The session has gone on for so long that its end will be no part of a series. Whether that is news.
    pub(super) fn goes_on(&mut self) -> bool {
        let is_news = !self.is_long;
        (self.is_long, self.breaks, self.unexplained) = (true, 0, 0);
        is_news
    }

    /// The session has ended: what that says of those that were in hand.
    pub(super) fn end(&mut self, ending: &Ending, now: i64) {
        match ending {
            Ending::Stopped | Ending::MachineRestarted => (self.breaks, self.unexplained) = (0, 0),
            Ending::Broken(_) | Ending::OutOfMemory => {
                self.breaks = self.breaks.saturating_add(1);
                self.last_break_at = Some(now);
                self.remember_who_was_together();
            }
            // One that had gone on for long begins a new series.
            Ending::Unexplained => self.unexplained = if self.is_long { 1 } else { self.unexplained.saturating_add(1) },
        }
        for suspect in self.suspects.values_mut() {
            let in_hand = suspect.in_hand.take();
            if in_hand.is_some_and(|in_hand| in_hand.is_alone) {
                suspect.blame(ending, in_hand.is_some_and(|in_hand| in_hand.is_set_aside), now);
            } else if *ending == Ending::Unexplained {
                // The session ends without it as well.
                suspect.unexplained = 0;
            }
        }
        (self.is_long, self.taken) = (false, 0);
        self.forget(now);
    }

    /// Takes over what another host, which is gone, remembered.
    pub(super) fn adopt(&mut self, other: Self, now: i64) {
        for (fingerprint, theirs) in other.suspects {
            let ours = self.suspects.entry(fingerprint).or_default();
            ours.broke = ours.broke.max(theirs.broke);
            ours.out_of_memory = ours.out_of_memory.max(theirs.out_of_memory);
            ours.unexplained = ours.unexplained.max(theirs.unexplained);
            ours.forms_broken = ours.forms_broken.max(theirs.forms_broken);
            if theirs.at > ours.at {
                (ours.at, ours.cause) = (theirs.at, theirs.cause);
            }
        }
        for fingerprint in other.together {
            if !self.together.contains(&fingerprint) {
                self.together.push(fingerprint);
            }
        }
        self.breaks = self.breaks.max(other.breaks);
        self.unexplained = self.unexplained.max(other.unexplained);
        self.last_break_at = self.last_break_at.max(other.last_break_at);
        self.forget(now);
    }

    fn remember_who_was_together(&mut self) {
        let mut in_hand: Vec<_> = self
            .suspects
            .iter()
            .filter_map(|(fingerprint, suspect)| Some((suspect.in_hand?.number, *fingerprint)))
            .collect();
        in_hand.sort_unstable_by(|one, other| other.cmp(one));
        self.together = in_hand.into_iter().map(|(_, fingerprint)| fingerprint).take(REMEMBERED_MAX).collect();
    }

    fn forget(&mut self, now: i64) {
        self.suspects.retain(|_, suspect| suspect.is_blamed() && now.saturating_sub(suspect.at) < REMEMBERED_MILLIS);
        while self.suspects.len() > REMEMBERED_MAX {
            let oldest =
                self.suspects.iter().min_by_key(|(_, suspect)| suspect.at).map(|(fingerprint, _)| *fingerprint);
            oldest.and_then(|oldest| self.suspects.remove(&oldest));
        }
    }
}

impl Suspect {
    fn blame(&mut self, ending: &Ending, is_set_aside: bool, now: i64) {
        let (count, cause) = match ending {
            Ending::Stopped | Ending::MachineRestarted => return,
            Ending::Broken(cause) => (&mut self.broke, cause.clone()),
            Ending::OutOfMemory => {
                (&mut self.out_of_memory, "the system killed a process for want of memory".to_owned())
            }
            Ending::Unexplained => (&mut self.unexplained, "the session ended without a known cause".to_owned()),
        };
        *count = count.saturating_add(1);
        if is_set_aside && *ending != Ending::Unexplained {
            self.forms_broken = self.forms_broken.saturating_add(1);
        }
        (self.cause, self.at) = (cause, now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn broken() -> Ending {
        Ending::Broken("SIGABRT ended the host".to_owned())
    }

    fn message(number: u8) -> Fingerprint {
        Fingerprint::of_number(number)
    }

    fn is_convicted(record: &Record, suspect: &Fingerprint) -> bool {
        record.conviction(suspect).is_some()
    }

    /// A session that ends with this message alone in hand.
    fn alone(record: &mut Record, suspect: Fingerprint, ending: &Ending) {
        record.take(suspect, true, is_convicted(record, &suspect));
        record.end(ending, 1);
    }

    #[test]
    fn who_breaks_the_session_alone_after_an_earlier_break_is_convicted() {
        let mut record = Record::default();
        assert!(!record.is_cautious(0));
        // Nothing is written down in a session that nobody suspects.
        record.end(&broken(), 0);
        assert!(record.is_cautious(0) && !record.is_worth_keeping());
        alone(&mut record, message(1), &broken());
        let conviction = record.conviction(&message(1)).unwrap();
        assert_eq!((conviction.form, conviction.count, conviction.at), (Form::Whole, 1, 1));
        assert_eq!(conviction.cause, "SIGABRT ended the host");
        assert!(!is_convicted(&record, &message(2)));
    }

    #[test]
    fn a_dead_letter_that_breaks_the_session_is_tried_in_plainer_forms() {
        let mut record = Record::default();
        let forms = (0..5).map(|_| {
            alone(&mut record, message(1), &broken());
            record.conviction(&message(1)).map(|conviction| conviction.form)
        });
        let expected = [Form::Whole, Form::PropertiesAsText, Form::BodyOnly, Form::BodyOnly, Form::BodyOnly];
        assert_eq!(forms.collect::<Vec<_>>(), expected.map(Some));
    }

    #[test]
    fn who_was_not_alone_is_not_convicted_and_the_last_goes_first() {
        let mut record = Record::default();
        for number in [3, 1, 2] {
            record.take(message(number), false, false);
        }
        record.settle(&message(1));
        record.end(&broken(), 0);
        assert!((1..=3).all(|number| !is_convicted(&record, &message(number))));
        assert_eq!(record.together(), [message(2), message(3)]);
        // One that others joined was not alone any more.
        record.take(message(2), true, false);
        record.accompany(&message(2));
        record.end(&broken(), 0);
        assert!(!is_convicted(&record, &message(2)));
    }

    #[test]
    fn one_that_is_dropped_while_the_session_ends_is_not_joined_by_another() {
        let mut record = Record::default();
        assert!(record.take(message(1), true, false));
        assert!(!record.take(message(2), true, false), "the first was not settled");
        record.end(&broken(), 0);
        assert!(is_convicted(&record, &message(1)) && !is_convicted(&record, &message(2)));
    }

    #[test]
    fn who_is_settled_or_given_back_is_not_in_hand() {
        let mut record = Record::default();
        alone(&mut record, message(1), &Ending::OutOfMemory);
        record.take(message(1), true, false);
        record.give_back(&message(1));
        record.end(&Ending::OutOfMemory, 0);
        assert!(!is_convicted(&record, &message(1)), "given back, and still remembered");
        alone(&mut record, message(1), &Ending::OutOfMemory);
        assert!(is_convicted(&record, &message(1)));
        record.settle(&message(1));
        assert!(!is_convicted(&record, &message(1)) && !record.is_worth_keeping());
    }

    #[test]
    fn a_series_makes_patient_and_a_long_session_ends_it() {
        let mut record = Record::default();
        let waits = (0..10).map(|_| {
            record.end(&broken(), 0);
            record.alone_max().as_millis()
        });
        let waits: Vec<_> = waits.collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 32_000, 32_000, 32_000]);
        assert!(record.goes_on() && !record.goes_on());
        assert_eq!(record.alone_max(), ALONE_MIN);
        assert!(record.is_cautious(CAUTION_MILLIS - 1) && !record.is_cautious(CAUTION_MILLIS));
    }

    #[test]
    fn ends_without_a_known_cause_make_suspicious_in_a_series_only() {
        let mut record = Record::default();
        for _ in 0..10 {
            record.end(&Ending::Unexplained, 0);
            record.goes_on();
        }
        assert!(!record.is_cautious(0));
        for _ in 0..UNEXPLAINED_SUSPICIOUS {
            assert!(!record.is_cautious(0));
            record.end(&Ending::Unexplained, 0);
        }
        assert!(record.is_cautious(0));
        record.end(&Ending::Stopped, 0);
        assert!(!record.is_cautious(0));
    }

    #[test]
    fn a_message_that_always_ends_the_session_is_convicted_whatever_the_cause() {
        let mut record = Record::default();
        for count in 0..UNEXPLAINED_MAX {
            assert!(!is_convicted(&record, &message(1)), "after {count}");
            assert_eq!(record.needs_a_control(&message(1)), count > 0);
            alone(&mut record, message(1), &Ending::Unexplained);
        }
        assert!(is_convicted(&record, &message(1)));
    }

    #[test]
    fn what_is_remembered_has_a_bound_in_number_and_time() {
        let mut record = Record::default();
        for number in 0..=u8::MAX {
            alone(&mut record, message(number), &broken());
        }
        record.take(Fingerprint::of("q", "", "", &broker::Message::default()), true, false);
        record.end(&broken(), 2);
        assert_eq!(record.suspects.len(), REMEMBERED_MAX);
        record.end(&Ending::Stopped, REMEMBERED_MILLIS + 1);
        assert_eq!(record.suspects.len(), 1, "the one of the day after");
    }

    #[test]
    fn it_is_written_and_read_and_what_two_hosts_know_comes_together() {
        let (mut one, mut other) = (Record::default(), Record::default());
        alone(&mut one, message(1), &broken());
        alone(&mut other, message(2), &Ending::OutOfMemory);
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), one);
        other.adopt(one, 1);
        assert!(is_convicted(&other, &message(1)) && !is_convicted(&other, &message(2)));
        alone(&mut other, message(2), &Ending::OutOfMemory);
        assert!(is_convicted(&other, &message(2)));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// One of a few messages is taken, if nothing is alone in hand.
        Take(u8),
        /// The one that is alone has been that for long enough.
        Accompany,
        Settle(prop::sample::Index),
        GiveBack(prop::sample::Index),
        GoOn,
        /// A kill, a cut connection, a restart of the broker.
        Kill,
        Restart,
        Stop,
    }

    /// The hands of a host that follows the rules of [`super::super::turn`], whatever happens to it.
    #[derive(Default)]
    struct Hands {
        record: Record,
        in_hand: Vec<u8>,
        is_alone: bool,
        /// For each message, the ends in a row at which it was alone in hand.
        in_a_row: BTreeMap<u8, u32>,
    }

    impl Hands {
        fn take(&mut self, number: u8) {
            if self.is_alone || self.in_hand.contains(&number) {
                return;
            }
            self.is_alone = self.in_hand.is_empty();
            self.in_hand.push(number);
            assert_eq!(self.record.take(message(number), self.is_alone, false), self.is_alone);
        }

        fn leave(&mut self, index: prop::sample::Index) -> Option<u8> {
            if self.in_hand.is_empty() {
                return None;
            }
            self.is_alone = false;
            Some(self.in_hand.swap_remove(index.index(self.in_hand.len())))
        }

        fn end(&mut self, ending: &Ending) {
            let alone = self.in_hand.first().filter(|_| self.is_alone).copied();
            if *ending == Ending::Unexplained {
                self.in_a_row.retain(|number, _| Some(*number) == alone);
                alone.map(|number| *self.in_a_row.entry(number).or_default() += 1);
            }
            self.record.end(ending, 0);
            (self.in_hand, self.is_alone) = (Vec::new(), false);
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u8..4).prop_map(Step::Take),
            2 => Just(Step::Accompany),
            2 => any::<prop::sample::Index>().prop_map(Step::Settle),
            1 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
            1 => Just(Step::GoOn),
            4 => Just(Step::Kill),
            1 => Just(Step::Restart),
            1 => Just(Step::Stop),
        ]
    }

    proptest! {
        /// However a healthy host is killed, cut off and restarted, no message is convicted, unless one after the other
        /// so many sessions end while it is the only one in hand.
        #[test]
        fn an_innocent_message_is_never_convicted_by_kills(steps in proptest::collection::vec(step(), 0..400)) {
            let mut hands = Hands::default();
            for step in steps {
                match step {
                    Step::Take(number) => hands.take(number),
                    Step::Accompany => {
                        if let Some(number) = hands.in_hand.first().filter(|_| hands.is_alone) {
                            hands.record.accompany(&message(*number));
                            hands.is_alone = false;
                        }
                    }
                    Step::Settle(index) => if let Some(number) = hands.leave(index) {
                        hands.record.settle(&message(number));
                        hands.in_a_row.remove(&number);
                    },
                    Step::GiveBack(index) => if let Some(number) = hands.leave(index) {
                        hands.record.give_back(&message(number));
                    },
                    Step::GoOn => { hands.record.goes_on(); }
                    Step::Kill => hands.end(&Ending::Unexplained),
                    Step::Restart => hands.end(&Ending::MachineRestarted),
                    Step::Stop => hands.end(&Ending::Stopped),
                }
                for number in 0..4 {
                    let in_a_row = hands.in_a_row.get(&number).copied().unwrap_or(0);
                    prop_assert_eq!(is_convicted(&hands.record, &message(number)), in_a_row >= UNEXPLAINED_MAX);
                }
            }
        }

        /// One message crashes the host whenever it is in hand, others are killed with it, and the host is killed at
        /// random moments as well: it is convicted, nobody else is, and it takes a bounded number of crashes.
        #[test]
        fn the_one_that_crashes_the_host_is_convicted_and_nobody_else(
            poison in 0_u8..6,
            steps in proptest::collection::vec((0_u8..6, any::<bool>(), 0_u8..10), 1..300),
        ) {
            let (mut hands, mut crashes) = (Hands::default(), 0);
            for (number, settles, kills) in steps {
                if is_convicted(&hands.record, &message(poison)) {
                    break;
                }
                hands.take(number);
                if hands.in_hand.contains(&poison) {
                    crashes += 1;
                    hands.end(&broken());
                    // The one that was taken last is the first of the next session.
                    let last = (0..6).find(|number| hands.record.together().first() == Some(&message(*number)));
                    prop_assert_eq!(last, Some(poison));
                } else if kills == 0 {
                    hands.end(&Ending::Unexplained);
                } else if settles {
                    hands.record.settle(&message(number));
                    hands.in_hand.retain(|other| *other != number);
                    hands.is_alone = false;
                } else if hands.is_alone {
                    hands.record.accompany(&message(hands.in_hand[0]));
                    hands.is_alone = false;
                }
                prop_assert!((0..6).all(|other| other == poison || !is_convicted(&hands.record, &message(other))));
            }
            if crashes > 0 && !is_convicted(&hands.record, &message(poison)) {
                hands.end(&Ending::Unexplained);
                hands.take(poison);
                hands.end(&broken());
                prop_assert!(is_convicted(&hands.record, &message(poison)));
            }
        }
    }
}
