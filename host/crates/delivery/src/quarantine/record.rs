//! Records messages that may have broken a host, and draws conclusions. Pure logic: it has no clock and no
//! file.
//!
//! Only evidence convicts a message. It takes a session that ended in a way that a message can cause, with one
//! redelivered message alone in hand.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::quarantine::fingerprint::Fingerprint;

/// How often a message that is alone in hand must run the machine out of memory. Once may be another program's
/// doing.
const OUT_OF_MEMORY_MAX: u32 = 2;
/// How often in a row a session must end without a known cause while a message is alone in hand. The number is
/// high because kills and cut connections come in series.
const UNEXPLAINED_MAX: u32 = 20;
/// Number of short sessions in a row without a known cause from which on messages are suspected.
const UNEXPLAINED_SUSPICIOUS: u32 = 3;
/// Maximum time for which a suspect is alone in hand. It doubles with each break in a row that a message may
/// have caused.
const ALONE_MIN: Duration = Duration::from_millis(500);
/// Maximum number of doublings of [`ALONE_MIN`].
const ALONE_DOUBLINGS_MAX: u32 = 6;
/// How long after a break messages that are offered again are suspects, in milliseconds. A day, because a
/// plugin's queue may go unserved for hours.
const CAUTION_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// Maximum number of remembered suspects.
const REMEMBERED_MAX: usize = 256;
/// How long suspects are remembered, in milliseconds. Another host may have settled them.
const REMEMBERED_MILLIS: i64 = 7 * 24 * 60 * 60 * 1000;

/// How a session, or the process with it, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SessionEnding {
    /// The host stopped cleanly.
    Stopped,
    /// The machine rebooted, which no message causes.
    MachineRestarted,
    /// It ended in a way that a message can cause, given as the subject and verb of a sentence.
    Broken(String),
    /// The system killed a process because it ran out of memory.
    OutOfMemory,
    /// Anything else: a kill from outside, the network, or the end of the broker.
    Unexplained,
}

/// The form in which a convicted message goes to the dead letters. Each form is tried after the one before has
/// broken the session too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadLetterForm {
    Whole,
    /// Headers and properties go into one header, as text.
    PropertiesAsText,
    BodyOnly,
}

/// Why a message is not handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conviction {
    pub(super) form: DeadLetterForm,
    /// The cause, as the subject and verb of a sentence.
    pub(super) cause: String,
    /// How often a session ended with this message alone in hand.
    pub(super) count: u32,
    /// When that last happened, in milliseconds since 1970.
    pub(super) at: i64,
}

/// Everything known to one host. Times are in milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    suspects: BTreeMap<Fingerprint, Suspect>,
    /// Suspects that were in hand together at a break, the last one taken first.
    together: Vec<Fingerprint>,
    /// Sessions in a row that ended in a way that a message can cause, none of them long.
    breaks: u32,
    /// Short sessions in a row that ended without a known cause.
    unexplained: u32,
    last_break_at: Option<i64>,
    /// Whether the session has lasted long enough that its end is not part of a series.
    is_long: bool,
    /// Number of messages taken in this session.
    taken: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Suspect {
    in_hand: Option<InHand>,
    broke: u32,
    out_of_memory: u32,
    unexplained: u32,
    /// How often the session broke while this message was being dead-lettered.
    forms_broken: u32,
    cause: String,
    at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct InHand {
    number: u64,
    is_alone: bool,
    /// Whether the message is convicted and on its way to the dead letters.
    is_set_aside: bool,
}

impl Suspect {
    fn is_blamed(&self) -> bool {
        self.broke > 0 || self.out_of_memory > 0 || self.unexplained > 0
    }
}

impl Record {
    /// Returns whether messages that are offered again are suspects.
    pub(super) fn is_cautious(&self, now: i64) -> bool {
        let since_break = self.last_break_at.map(|at| now.saturating_sub(at));
        since_break.is_some_and(|since| since < CAUTION_MILLIS)
            || self.unexplained >= UNEXPLAINED_SUSPICIOUS
            || self.is_worth_keeping()
    }

    /// Returns whether the next host should know the record even though this one stops cleanly.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.suspects.values().any(Suspect::is_blamed)
    }

    /// Returns the maximum time for which a suspect is alone in hand.
    pub(super) fn alone_max(&self) -> Duration {
        // Count breaks only. Kills and cut connections are no evidence, so a series of them must not slow the host
        // down.
        let series = self.breaks;
        ALONE_MIN.saturating_mul(1 << series.saturating_sub(1).min(ALONE_DOUBLINGS_MAX))
    }

    /// Returns the messages that were in hand together at a break, in the order to take them. The last one
    /// taken is the likeliest to have broken the session.
    pub(super) fn together(&self) -> &[Fingerprint] {
        &self.together
    }

    /// Returns whether the message is suspected for ends without a known cause. The session must then first
    /// show that it keeps running without the message.
    pub(super) fn needs_a_control(&self, suspect: &Fingerprint) -> bool {
        self.suspects.get(suspect).is_some_and(|suspect| suspect.unexplained > 0)
    }

    /// Returns the conviction, if there is one.
    pub(super) fn conviction(&self, suspect: &Fingerprint) -> Option<Conviction> {
        let suspect = self.suspects.get(suspect)?;
        let is_guilty =
            suspect.broke > 0 || suspect.out_of_memory >= OUT_OF_MEMORY_MAX || suspect.unexplained >= UNEXPLAINED_MAX;
        is_guilty.then(|| Conviction {
            form: match suspect.forms_broken {
                0 => DeadLetterForm::Whole,
                1 => DeadLetterForm::PropertiesAsText,
                _ => DeadLetterForm::BodyOnly,
            },
            cause: suspect.cause.clone(),
            count: suspect.broke + suspect.out_of_memory + suspect.unexplained,
            at: suspect.at,
        })
    }

    /// Takes a suspect in hand. `is_alone` says that nothing else is. Returns whether the record counts it as
    /// alone.
    pub(super) fn take(&mut self, suspect: Fingerprint, is_alone: bool, is_set_aside: bool) -> bool {
        // A message dropped unsettled, because the session is ending, was in hand before this one.
        let is_alone = is_alone && self.suspects.values().all(|suspect| suspect.in_hand.is_none());
        self.taken += 1;
        let in_hand = InHand { number: self.taken, is_alone, is_set_aside };
        self.suspects.entry(suspect).or_default().in_hand = Some(in_hand);
        is_alone
    }

    /// Notes that from now on other messages are taken too.
    pub(super) fn accompany(&mut self, suspect: &Fingerprint) {
        if let Some(in_hand) = self.suspects.get_mut(suspect).and_then(|suspect| suspect.in_hand.as_mut()) {
            in_hand.is_alone = false;
        }
    }

    /// Clears a message that is settled, so it will not be offered again.
    pub(super) fn settle(&mut self, suspect: &Fingerprint) {
        self.suspects.remove(suspect);
        self.together.retain(|other| other != suspect);
    }

    /// Notes that a message is no longer in hand and will be offered again.
    pub(super) fn give_back(&mut self, suspect: &Fingerprint) {
        if let Some(found) = self.suspects.get_mut(suspect) {
            found.in_hand = None;
            if !found.is_blamed() {
                self.suspects.remove(suspect);
            }
        }
    }

    /// Notes that the session has lasted long enough to end a series. Returns whether that is new.
    pub(super) fn goes_on(&mut self) -> bool {
        let is_news = !self.is_long;
        (self.is_long, self.breaks, self.unexplained) = (true, 0, 0);
        is_news
    }

    /// Ends the session, and draws conclusions about the messages that were in hand.
    pub(super) fn end(&mut self, ending: &SessionEnding, now: i64) {
        match ending {
            SessionEnding::Stopped | SessionEnding::MachineRestarted => (self.breaks, self.unexplained) = (0, 0),
            SessionEnding::Broken(_) | SessionEnding::OutOfMemory => {
                self.breaks = self.breaks.saturating_add(1);
                self.last_break_at = Some(now);
                self.remember_who_was_together();
            }
            // A session that lasted long begins a new series.
            SessionEnding::Unexplained => {
                self.unexplained = if self.is_long { 1 } else { self.unexplained.saturating_add(1) };
            }
        }
        for suspect in self.suspects.values_mut() {
            let in_hand = suspect.in_hand.take();
            if in_hand.is_some_and(|in_hand| in_hand.is_alone) {
                suspect.blame(ending, in_hand.is_some_and(|in_hand| in_hand.is_set_aside), now);
            } else if *ending == SessionEnding::Unexplained {
                // The session also ends without this message in hand.
                suspect.unexplained = 0;
            }
        }
        (self.is_long, self.taken) = (false, 0);
        self.forget(now);
    }

    /// Takes over the record of another host, which is gone.
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
    fn blame(&mut self, ending: &SessionEnding, is_set_aside: bool, now: i64) {
        let (count, cause) = match ending {
            SessionEnding::Stopped | SessionEnding::MachineRestarted => return,
            SessionEnding::Broken(cause) => (&mut self.broke, cause.clone()),
            SessionEnding::OutOfMemory => {
                (&mut self.out_of_memory, "the system killed a process for want of memory".to_owned())
            }
            SessionEnding::Unexplained => (&mut self.unexplained, "the session ended without a known cause".to_owned()),
        };
        *count = count.saturating_add(1);
        if is_set_aside && *ending != SessionEnding::Unexplained {
            self.forms_broken = self.forms_broken.saturating_add(1);
        }
        (self.cause, self.at) = (cause, now);
    }
}

#[cfg(test)]
mod tests;
