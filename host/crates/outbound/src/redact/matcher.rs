//! The matcher finds where needles end in a text, in whatever spelling, in a time that does not tell how much of a needle is there.
//!
//! It follows all needles of a block at once, a bit for each of their bytes (Shift-And): what it does at a place depends on the
//! text alone. A plugin that chooses what a server sends back, and takes the time, learns from it what it could learn by
//! guessing a whole needle, or [`WINDOW`] bytes of it, at once.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use crate::redact::needle::Needle;
use crate::redact::spelling::{SPELLING_BYTES_MAX, gap, is_plain, spellings};

/// Needles of one block, so many that they fit into a processor's registers.
pub(super) const LANES: usize = 8;
/// Of a longer needle, this much of its end is followed. Tokens, keys and signatures are random there, and what they begin with
/// is often known.
const WINDOW: usize = 64;
/// Places ahead for which something is kept: more than a spelling and the gap behind it reach.
const RING: usize = 128;

const _: () = assert!(SPELLING_BYTES_MAX < RING && RING.is_power_of_two());

type Lanes = [u64; LANES];

/// Some needles that are looked for together.
pub(super) struct Block {
    /// For each byte: where in each needle it stands.
    places: Zeroizing<Vec<Lanes>>,
    /// The last place of each needle.
    last: Lanes,
}

impl Block {
    /// At most [`LANES`] needles.
    pub(super) fn new(needles: &[Needle]) -> Self {
        let (mut places, mut last) = (Zeroizing::new(vec![[0; LANES]; 256]), [0; LANES]);
        for (lane, needle) in needles.iter().enumerate() {
            let form = needle.form();
            let window = &form[form.len().saturating_sub(WINDOW)..];
            for (place, wanted) in window.iter().enumerate() {
                last[lane] = 1 << place;
                for byte in 0..=u8::MAX {
                    if needle.takes(*wanted, byte) {
                        places[usize::from(byte)][lane] |= 1 << place;
                    }
                }
            }
        }
        Self { places, last }
    }

    /// Tells each place where one of them may end, and which one it is. Of a longer needle, only its end is known to be there.
    pub(super) fn ends(&self, text: &[u8], mut found: impl FnMut(usize, usize)) {
        let mut ring = [[0; LANES]; RING];
        // How far the ring has anything in it.
        let mut reach = 0;
        let mut state = [0; LANES];
        for at in 0..text.len() {
            if at <= reach {
                let kept = std::mem::take(&mut ring[at % RING]);
                state = join(state, kept);
            }
            if is_plain(text, at) {
                state = self.step(state, text[at]);
                self.tell(state, at + 1, &mut found);
                continue;
            }
            let mut next = [0; LANES];
            for spelling in spellings(text, at).iter() {
                let end = at + spelling.bytes;
                let mut taken = state;
                let mut buffer = [0; 4];
                for byte in spelling.meant.bytes(&mut buffer) {
                    taken = self.step(taken, *byte);
                }
                self.tell(taken, end, &mut found);
                for end in ends_of(text, at, end) {
                    if end == at + 1 {
                        next = join(next, taken);
                    } else {
                        ring[end % RING] = join(ring[end % RING], taken);
                        reach = reach.max(end);
                    }
                }
            }
            state = next;
        }
    }

    fn step(&self, state: Lanes, byte: u8) -> Lanes {
        let places = &self.places[usize::from(byte)];
        std::array::from_fn(|lane| (state[lane] << 1 | 1) & places[lane])
    }

    fn tell(&self, state: Lanes, end: usize, found: &mut impl FnMut(usize, usize)) {
        let is_last = state.iter().zip(&self.last).fold(0, |all, (state, last)| all | (state & last));
        if is_last != 0 {
            (0..LANES).filter(|lane| state[*lane] & self.last[*lane] != 0).for_each(|lane| found(end, lane));
        }
    }
}

fn join(one: Lanes, other: Lanes) -> Lanes {
    std::array::from_fn(|lane| one[lane] | other[lane])
}

/// Where what follows a spelling begins: at its end, and behind a gap.
fn ends_of(text: &[u8], at: usize, end: usize) -> impl Iterator<Item = usize> {
    let gap = gap(text, end);
    let behind = (gap > 0 && end + gap - at <= SPELLING_BYTES_MAX).then_some(end + gap);
    [end].into_iter().chain(behind)
}

/// Where a needle begins that may end there; `None` if it is not there after all. Before `covered` it need not be told exactly.
///
/// A first character that is escaped is taken whole.
pub(super) fn start(text: &[u8], end: usize, needle: &Needle, covered: usize) -> Option<usize> {
    let form = needle.form();
    let furthest = end.saturating_sub(form.len() * SPELLING_BYTES_MAX);
    let may_begin = |start: usize| !is_plain(text, start) || needle.takes(form[0], text[start]);
    let is_start = |start: &usize| may_begin(*start) && reaches(text, *start, end, needle);
    let latest = end.checked_sub(form.len())?;
    // All of it was followed, so that it is there, and overlaps with what was found before.
    if form.len() <= WINDOW && latest < covered {
        return Some(latest);
    }
    let mut start = (furthest..=latest).rev().find(is_start)?;
    // The end of an escape may look like what it stands for.
    while start >= covered
        && let Some(earlier) = (furthest.max(start.saturating_sub(SPELLING_BYTES_MAX))..start).find(is_start)
    {
        start = earlier;
    }
    Some(start)
}

/// Whether the text from `start` to `end` is a spelling of the needle.
fn reaches(text: &[u8], start: usize, end: usize, needle: &Needle) -> bool {
    let form = needle.form();
    // Places in the text, and how much of the needle is before them: few, and mostly one.
    let (mut next, mut open, mut known) = (Some((start, 0)), Vec::new(), BTreeSet::new());
    while let Some((at, before)) = next {
        for spelling in spellings(text, at).iter().filter(|spelling| at + spelling.bytes <= end) {
            let (mut buffer, behind) = ([0; 4], at + spelling.bytes);
            let bytes = spelling.meant.bytes(&mut buffer);
            let matched = before + bytes.len();
            let wanted = form.get(before..matched).unwrap_or_default();
            if wanted.is_empty() || wanted.iter().zip(bytes).any(|(wanted, byte)| !needle.takes(*wanted, *byte)) {
                continue;
            }
            if matched == form.len() {
                if behind == end {
                    return true;
                }
                continue;
            }
            // Only where there are several ways can two of them meet.
            let mut is_new = |place: &(usize, usize)| place.0 < end && (is_plain(text, at) || known.insert(*place));
            open.extend(ends_of(text, at, behind).map(|place| (place, matched)).filter(&mut is_new));
        }
        next = open.pop();
    }
    false
}
