//! Finds where needles end in a text, in any spelling. The time it takes does not reveal how much of a needle is
//! present.
//!
//! It follows all needles of a block at once, with one bit for each of their bytes (Shift-And), so its work at each
//! position depends only on the text. A plugin that controls a server's response and measures the time learns no more
//! than by guessing a whole needle, or [`WINDOW`] bytes of it, at once.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use crate::redact::needle::Needle;
use crate::redact::spelling::{SPELLING_BYTES_MAX, gap, is_plain, spellings};

/// Needles per block, so many that they fit into a processor's registers.
pub(super) const LANES: usize = 8;
/// Only this many bytes at the end of a longer needle are followed. Tokens, keys and signatures are random there,
/// while their beginning is often known.
const WINDOW: usize = 64;
/// Positions ahead for which state is kept: more than a spelling and the gap behind it reach.
const RING: usize = 128;

const _: () = assert!(SPELLING_BYTES_MAX < RING && RING.is_power_of_two());

type Lanes = [u64; LANES];

/// Needles that are searched together.
pub(super) struct Block {
    /// For each byte: its positions in each needle.
    places: Zeroizing<Vec<Lanes>>,
    /// The last position of each needle.
    last: Lanes,
}

impl Block {
    /// Builds a block of at most [`LANES`] needles.
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

    /// Reports each position where a needle may end, and which needle. For a longer needle, only its end is known to
    /// match.
    pub(super) fn ends(&self, text: &[u8], mut found: impl FnMut(usize, usize)) {
        let mut ring = [[0; LANES]; RING];
        // How far ahead the ring holds anything.
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

/// Returns where the text after a spelling begins: at its end, and behind a gap.
fn ends_of(text: &[u8], at: usize, end: usize) -> impl Iterator<Item = usize> {
    let gap = gap(text, end);
    let behind = (gap > 0 && end + gap - at <= SPELLING_BYTES_MAX).then_some(end + gap);
    [end].into_iter().chain(behind)
}

/// Returns where the needle that may end at `end` begins, or `None` if it is not there after all. A start before
/// `covered` need not be exact.
///
/// An escaped first character is included as a whole.
pub(super) fn start(text: &[u8], end: usize, needle: &Needle, covered: usize) -> Option<usize> {
    let form = needle.form();
    let furthest = end.saturating_sub(form.len() * SPELLING_BYTES_MAX);
    let may_begin = |start: usize| !is_plain(text, start) || needle.takes(form[0], text[start]);
    let is_start = |start: &usize| may_begin(*start) && reaches(text, *start, end, needle);
    let latest = end.checked_sub(form.len())?;
    // The whole needle was followed, so it is present, and it overlaps with the previous match.
    if form.len() <= WINDOW && latest < covered {
        return Some(latest);
    }
    let mut start = (furthest..=latest).rev().find(is_start)?;
    // The end of an escape may look like the character it stands for.
    while start >= covered
        && let Some(earlier) = (furthest.max(start.saturating_sub(SPELLING_BYTES_MAX))..start).find(is_start)
    {
        start = earlier;
    }
    Some(start)
}

/// Returns whether the text from `start` to `end` is a spelling of the needle.
fn reaches(text: &[u8], start: usize, end: usize, needle: &Needle) -> bool {
    let form = needle.form();
    // Open positions in the text, each with the number of needle bytes before it. There are few, usually one.
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
            // Two paths can meet only where there are several readings.
            let mut is_new = |place: &(usize, usize)| place.0 < end && (is_plain(text, at) || known.insert(*place));
            open.extend(ends_of(text, at, behind).map(|place| (place, matched)).filter(&mut is_new));
        }
        next = open.pop();
    }
    false
}
