//! Tests which evidence convicts which message.

use proptest::prelude::*;

use super::*;

fn broken() -> SessionEnding {
    SessionEnding::Broken("SIGABRT ended the host".to_owned())
}

fn message(number: u8) -> Fingerprint {
    Fingerprint::of_number(number)
}

fn is_convicted(record: &Record, suspect: &Fingerprint) -> bool {
    record.conviction(suspect).is_some()
}

/// Ends a session with this message alone in hand.
fn alone(record: &mut Record, suspect: Fingerprint, ending: &SessionEnding) {
    record.take(suspect, true, is_convicted(record, &suspect));
    record.end(ending, 1);
}

#[test]
fn who_breaks_the_session_alone_after_an_earlier_break_is_convicted() {
    let mut record = Record::default();
    assert!(!record.is_cautious(0));
    // A session that nobody suspects records nothing.
    record.end(&broken(), 0);
    assert!(record.is_cautious(0) && !record.is_worth_keeping());
    alone(&mut record, message(1), &broken());
    let conviction = record.conviction(&message(1)).unwrap();
    assert_eq!((conviction.form, conviction.count, conviction.at), (DeadLetterForm::Whole, 1, 1));
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
    let expected = [
        DeadLetterForm::Whole,
        DeadLetterForm::PropertiesAsText,
        DeadLetterForm::BodyOnly,
        DeadLetterForm::BodyOnly,
        DeadLetterForm::BodyOnly,
    ];
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
    // A message that others joined is no longer alone.
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
    alone(&mut record, message(1), &SessionEnding::OutOfMemory);
    record.take(message(1), true, false);
    record.give_back(&message(1));
    record.end(&SessionEnding::OutOfMemory, 0);
    assert!(!is_convicted(&record, &message(1)), "given back, and still remembered");
    alone(&mut record, message(1), &SessionEnding::OutOfMemory);
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
        record.end(&SessionEnding::Unexplained, 0);
        record.goes_on();
    }
    assert!(!record.is_cautious(0));
    for _ in 0..UNEXPLAINED_SUSPICIOUS {
        assert!(!record.is_cautious(0));
        record.end(&SessionEnding::Unexplained, 0);
    }
    assert!(record.is_cautious(0));
    record.end(&SessionEnding::Stopped, 0);
    assert!(!record.is_cautious(0));
}

#[test]
fn a_message_that_always_ends_the_session_is_convicted_whatever_the_cause() {
    let mut record = Record::default();
    for count in 0..UNEXPLAINED_MAX {
        assert!(!is_convicted(&record, &message(1)), "after {count}");
        assert_eq!(record.needs_a_control(&message(1)), count > 0);
        alone(&mut record, message(1), &SessionEnding::Unexplained);
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
    record.end(&SessionEnding::Stopped, REMEMBERED_MILLIS + 1);
    assert_eq!(record.suspects.len(), 1, "the one of the day after");
}

#[test]
fn it_is_written_and_read_and_what_two_hosts_know_comes_together() {
    let (mut one, mut other) = (Record::default(), Record::default());
    alone(&mut one, message(1), &broken());
    alone(&mut other, message(2), &SessionEnding::OutOfMemory);
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), one);
    other.adopt(one, 1);
    assert!(is_convicted(&other, &message(1)) && !is_convicted(&other, &message(2)));
    alone(&mut other, message(2), &SessionEnding::OutOfMemory);
    assert!(is_convicted(&other, &message(2)));
}

#[derive(Clone, Copy, Debug)]
enum HostStep {
    /// Take one of a few messages, unless one is alone in hand.
    Take(u8),
    /// The time of the message that is alone is up.
    Accompany,
    Settle(prop::sample::Index),
    GiveBack(prop::sample::Index),
    GoOn,
    /// A kill, a cut connection, or a restart of the broker.
    Kill,
    Restart,
    Stop,
}

/// Models a host that follows the rules of [`crate::quarantine::turn`], whatever happens to it.
#[derive(Default)]
struct Hands {
    record: Record,
    in_hand: Vec<u8>,
    is_alone: bool,
    /// For each message, the number of ends in a row at which it was alone in hand.
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

    fn end(&mut self, ending: &SessionEnding) {
        let alone = self.in_hand.first().filter(|_| self.is_alone).copied();
        if *ending == SessionEnding::Unexplained {
            self.in_a_row.retain(|number, _| Some(*number) == alone);
            if let Some(number) = alone {
                *self.in_a_row.entry(number).or_default() += 1;
            }
        }
        self.record.end(ending, 0);
        (self.in_hand, self.is_alone) = (Vec::new(), false);
    }
}

fn step() -> impl Strategy<Value = HostStep> {
    prop_oneof![
        8 => (0_u8..4).prop_map(HostStep::Take),
        2 => Just(HostStep::Accompany),
        2 => any::<prop::sample::Index>().prop_map(HostStep::Settle),
        1 => any::<prop::sample::Index>().prop_map(HostStep::GiveBack),
        1 => Just(HostStep::GoOn),
        4 => Just(HostStep::Kill),
        1 => Just(HostStep::Restart),
        1 => Just(HostStep::Stop),
    ]
}

proptest! {
    /// A healthy host may be killed, cut off and restarted in any way. No message is convicted unless enough
    /// sessions in a row end while it is the only one in hand.
    #[test]
    fn an_innocent_message_is_never_convicted_by_kills(steps in proptest::collection::vec(step(), 0..400)) {
        let mut hands = Hands::default();
        for step in steps {
            match step {
                HostStep::Take(number) => hands.take(number),
                HostStep::Accompany => {
                    if let Some(number) = hands.in_hand.first().filter(|_| hands.is_alone) {
                        hands.record.accompany(&message(*number));
                        hands.is_alone = false;
                    }
                }
                HostStep::Settle(index) => if let Some(number) = hands.leave(index) {
                    hands.record.settle(&message(number));
                    hands.in_a_row.remove(&number);
                },
                HostStep::GiveBack(index) => if let Some(number) = hands.leave(index) {
                    hands.record.give_back(&message(number));
                },
                HostStep::GoOn => { hands.record.goes_on(); }
                HostStep::Kill => hands.end(&SessionEnding::Unexplained),
                HostStep::Restart => hands.end(&SessionEnding::MachineRestarted),
                HostStep::Stop => hands.end(&SessionEnding::Stopped),
            }
            for number in 0..4 {
                let in_a_row = hands.in_a_row.get(&number).copied().unwrap_or(0);
                prop_assert_eq!(is_convicted(&hands.record, &message(number)), in_a_row >= UNEXPLAINED_MAX);
            }
        }
    }

    /// One message crashes the host whenever it is in hand, taking others down with it. The host is also killed
    /// at random moments. The message is convicted within a bounded number of crashes, and no other is.
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
                // The last message taken is the first one in the next session.
                let last = (0..6).find(|number| hands.record.together().first() == Some(&message(*number)));
                prop_assert_eq!(last, Some(poison));
            } else if kills == 0 {
                hands.end(&SessionEnding::Unexplained);
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
            hands.end(&SessionEnding::Unexplained);
            hands.take(poison);
            hands.end(&broken());
            prop_assert!(is_convicted(&hands.record, &message(poison)));
        }
    }
}
