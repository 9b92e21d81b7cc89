//! A chunk is many records in one row of the file, with a filter that says which events are surely not in
//! it. One row for each record would cost more than the delivery that it tells of.

use lz4_flex::block;

use crate::form::{self, List, Pen};
use crate::record::{Line, Record, Routed, Then, What};

/// Bits of the filter for each key in it, and probes: one chunk in a hundred is read in vain.
const BITS_A_KEY: usize = 10;
const PROBES: u64 = 7;
/// Bytes that one byte of LZ4 can stand for, at most: a byte of a length is 255.
const UNPACKED_MAX: usize = 255;

/// Records, encoded.
///
/// They are packed (LZ4) for the file: what many events have in common makes four fifths of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    pub(super) first_at: i64,
    pub(super) last_at: i64,
    pub(super) count: u64,
    pub(super) records: Vec<u8>,
    keys: Vec<u64>,
}

impl Chunk {
    /// Takes records of so many bytes without more memory.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self { records: Vec::with_capacity(bytes), ..Self::default() }
    }

    pub(super) fn has_room(&self, other: &Self) -> bool {
        self.records.len() + other.records.len() <= self.records.capacity()
    }

    /// Takes a record, and perhaps what happened next to its event.
    #[expect(clippy::inline_always, reason = "where it is known what happened, most of this goes away")]
    #[inline(always)]
    pub(super) fn write<'r, Routes: List<Routed<&'r str>>, Lines: List<Line<&'r str>>>(
        &mut self,
        record: &Record<&'r str, Routes, Lines>,
        then: Option<&Then<&'r str, Routes, Lines>>,
    ) {
        let last_at = then.map_or(record.at, |then| then.at);
        self.span(record.at, last_at, 1 + u64::from(then.is_some()));
        Pen(&mut self.records).record(record, then);
        self.keys.push(key(record.id));
        if let What::Received(received) = &record.what {
            self.keys.extend(received.subject.map(key));
        }
    }

    /// Takes all that is in another one.
    pub(super) fn append(&mut self, other: &Self) {
        self.span(other.first_at, other.last_at, other.count);
        self.records.extend_from_slice(&other.records);
        self.keys.extend_from_slice(&other.keys);
    }

    fn span(&mut self, first_at: i64, last_at: i64, count: u64) {
        if self.count == 0 {
            (self.first_at, self.last_at) = (first_at, last_at);
        }
        self.first_at = self.first_at.min(first_at);
        self.last_at = self.last_at.max(last_at);
        self.count += count;
    }

    /// As if it were new, in the same memory.
    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.records.clear();
        self.keys.clear();
    }

    /// The records as the file has them, for [`records`].
    pub(super) fn packed(&self) -> Vec<u8> {
        block::compress_prepend_size(&self.records)
    }

    /// Says of a key whether it may be in it.
    pub(super) fn filter(&self) -> Vec<u8> {
        let mut filter = vec![0; (self.keys.len() * BITS_A_KEY).div_ceil(8).max(1)];
        for key in &self.keys {
            for bit in bits(*key, filter.len()) {
                filter[bit / 8] |= 1 << (bit % 8);
            }
        }
        filter
    }
}

/// Of an event's id, or of a subject.
// Once, and not wherever it is called, as in `form.rs`.
#[inline(never)]
pub(super) fn key(text: &str) -> u64 {
    // As FNV-1a, but of eight bytes at once: it must be the same in every version of this program.
    let (words, rest) = text.as_bytes().as_chunks();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().chain([&last]).fold(text.len() as u64, |hash, word| {
        let hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The upper half is the better one, and the next word is to change all of it.
        hash ^ (hash >> 32)
    })
}

/// Whether a chunk with this filter may have the key.
pub(super) fn may_have(filter: &[u8], key: u64) -> bool {
    bits(key, filter.len()).all(|bit| filter.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0))
}

fn bits(key: u64, filter_bytes: usize) -> impl Iterator<Item = usize> {
    let count = (filter_bytes as u64 * 8).max(1);
    // Two hashes make as many as are wanted (Kirsch and Mitzenmacher, 2006).
    let step = (key >> 32) | 1;
    (0..PROBES).map(move |probe| {
        let bit = key.wrapping_add(probe.wrapping_mul(step)) % count;
        usize::try_from(bit).unwrap_or(0)
    })
}

/// The records of a packed chunk, those of one event in their order; without what makes no sense, and what comes after that.
pub(super) fn records(packed: &[u8]) -> Vec<Record> {
    let mut records = unpacked(packed).map(|bytes| form::records(&bytes)).unwrap_or_default();
    // Each thread of the host has handed over several at once.
    records.sort_by_key(Record::order);
    records
}

fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let (bytes, rest) = block::uncompressed_size(packed).ok()?;
    // Whatever a damaged file says, it has no more memory than this.
    (bytes <= rest.len().saturating_mul(UNPACKED_MAX)).then(|| block::decompress(rest, bytes).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Lent, Received};

    fn received<'a>(id: &'a str, subject: Option<&'a str>) -> Lent<'a> {
        Record {
            at: 5,
            id,
            source: "shop",
            event_type: "OrderCreated",
            what: What::Received(Received {
                subject,
                time: None,
                exchange: "orders",
                routing_key: "order.created",
                redelivered: false,
                bytes: 200,
                routed: Vec::new().into_iter(),
                not_subscribed: 1,
            }),
        }
    }

    fn chunk(records: &[Lent<'_>]) -> Chunk {
        let mut chunk = Chunk::default();
        for record in records {
            chunk.write(record, None);
        }
        chunk
    }

    #[test]
    fn what_goes_in_comes_out_up_to_where_it_is_torn() {
        let mut chunk = chunk(&[received("1", None), received("2", Some("4711"))]);
        let both = records(&chunk.packed());
        let ids: Vec<_> = both.iter().map(|record| &*record.id).collect();
        assert_eq!(ids, ["1", "2"]);
        assert!(matches!(&both[1].what, What::Received(received) if received.subject.as_deref() == Some("4711")));
        chunk.records.pop();
        assert_eq!(records(&chunk.packed()), both[..1]);
    }

    #[test]
    fn what_several_threads_hand_over_is_in_order() {
        let (mut one, mut other) = (Chunk::default(), Chunk::default());
        one.write(&received("2", None), Some(&Then { at: 7, what: What::Duplicate }));
        other.write(&Lent { at: 6, ..received("1", None) }, None);
        let mut chunk = Chunk::default();
        chunk.append(&one);
        chunk.append(&other);
        assert_eq!((chunk.first_at, chunk.last_at, chunk.count), (5, 7, 3));
        let told: Vec<_> = records(&chunk.packed()).into_iter().map(|record| (record.at, record.id)).collect();
        assert_eq!(told, [(5, "2".into()), (6, "1".into()), (7, "2".into())]);
    }

    #[test]
    fn a_damaged_chunk_has_no_records_and_takes_no_memory() {
        let packed = chunk(&[received("1", None)]).packed();
        assert_eq!(records(&packed[..packed.len() - 1]), []);
        assert_eq!(records(&packed[..3]), []);
        let mut claims = packed.clone();
        claims[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(unpacked(&claims), None);
        // What is packed best is taken for what it is.
        let mut even = Chunk { records: vec![0; 1 << 20], ..Chunk::default() };
        assert_eq!(unpacked(&even.packed()).unwrap(), even.records);
        even.clear();
        assert!(unpacked(&even.packed()).unwrap().is_empty());
    }

    #[test]
    fn a_filter_misses_nothing_and_is_seldom_wrong() {
        let texts: Vec<_> = (0..500).map(|id| (format!("id-{id}"), format!("order-{id}"))).collect();
        let records: Vec<_> = texts.iter().map(|(id, subject)| received(id, Some(subject))).collect();
        let filter = chunk(&records).filter();
        for (id, subject) in &texts {
            assert!(may_have(&filter, key(id)) && may_have(&filter, key(subject)));
        }
        let wrong = (500..10_500).filter(|id| may_have(&filter, key(&format!("id-{id}")))).count();
        assert!(wrong < 300, "{wrong} of 10,000");
        assert!(!may_have(&[], 1));
    }
}
