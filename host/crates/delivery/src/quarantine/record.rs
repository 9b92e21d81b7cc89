//! The record of messages that may have broken a host, and the conclusions from it. Pure: it has no clock and no file.
//!
//! A message is convicted on evidence only. Evidence is a session that ended in a way that a message can cause, while
//! one message that the broker had offered before was the only one in hand.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::quarantine::fingerprint::Fingerprint;

/// How often a message that is alone in hand has to run the machine out of memory. Once may be another program's doing.
const OUT_OF_MEMORY_MAX: u32 = 2;
/// How often in a row a session has to end without a known cause while a message is alone in hand. Kills and cut
/// connections come in series, so this is many.
const UNEXPLAINED_MAX: u32 = 20;
/// Short sessions in a row that ended without a known cause. From there on messages are suspected.
const UNEXPLAINED_SUSPICIOUS: u32 = 3;
/// How long a suspect is alone in hand at most; doubled by each break in a row that a message may have caused.
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
pub(crate) enum Form {
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
        // Kills and cut networks are no evidence: they must not slow the host down further with each.
        let series = self.breaks;
        ALONE_MIN.saturating_mul(1 << series.saturating_sub(1).min(ALONE_DOUBLINGS_MAX))
    }

    /// The messages that were in hand together at a break, in the order in which they are to be taken: the one that was taken
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
mod tests;
