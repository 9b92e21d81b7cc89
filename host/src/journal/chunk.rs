//! A chunk is many records in one row of the file, with a filter that says which events are surely not in
//! it. One row for each record would cost more than the delivery that it tells of.

use postcard::ser_flavors::Flavor;

use crate::journal::record::{Record, What};

/// Bits of the filter for each key in it, and probes: one chunk in a hundred is read in vain.
const BITS_A_KEY: usize = 10;
const PROBES: u64 = 7;

/// One record, encoded, on its way into a chunk. It can be used again for the next one.
#[derive(Debug, Default)]
pub(super) struct Slip {
    at: i64,
    record: Vec<u8>,
    /// Of its event's id, and of its subject, where the record has that.
    keys: (u64, Option<u64>),
}

impl Slip {
    pub(super) fn write(&mut self, record: &Record<&str>) {
        self.record.clear();
        // Memory is all that it needs.
        let _ = postcard::serialize_with_flavor(record, Onto(&mut self.record));
        self.at = record.at;
        let subject = match &record.what {
            What::Received(received) => received.subject.map(key),
            What::Duplicate | What::Spilled { .. } | What::Attempted(_) | What::Undecodable { .. } => None,
        };
        self.keys = (key(record.id), subject);
    }

    pub(super) fn bytes(&self) -> usize {
        self.record.len()
    }
}

/// Texts are copied as a whole, which `postcard::to_extend` does byte by byte.
struct Onto<'v>(&'v mut Vec<u8>);

impl Flavor for Onto<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Records, encoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    pub(super) first_at: i64,
    pub(super) last_at: i64,
    pub(super) count: u64,
    pub(super) records: Vec<u8>,
    keys: Vec<u64>,
}

impl Chunk {
    /// Takes records of so many bytes, or one that is larger.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self { records: Vec::with_capacity(bytes), ..Self::default() }
    }

    pub(super) fn has_room(&self, slip: &Slip) -> bool {
        self.records.len() + slip.record.len() <= self.records.capacity()
    }

    pub(super) fn push(&mut self, slip: &Slip) {
        if self.count == 0 {
            (self.first_at, self.last_at) = (slip.at, slip.at);
        }
        self.first_at = self.first_at.min(slip.at);
        self.last_at = self.last_at.max(slip.at);
        self.count += 1;
        self.records.extend_from_slice(&slip.record);
        let (id, subject) = slip.keys;
        self.keys.push(id);
        self.keys.extend(subject);
    }

    /// As if it were new, in the same memory.
    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.records.clear();
        self.keys.clear();
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
pub(super) fn key(text: &str) -> u64 {
    // FNV-1a: it must be the same in every version of this program.
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
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

/// The records of a chunk; those before the first that makes no sense.
pub(super) fn records(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let Ok((record, rest)) = postcard::take_from_bytes(bytes) else { break };
        records.push(record);
        bytes = rest;
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::Received;

    fn received<'a>(id: &'a str, subject: Option<&'a str>) -> Record<&'a str> {
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
                routed: Vec::new(),
                not_subscribed: 1,
            }),
        }
    }

    fn chunk(records: &[Record<&str>]) -> Chunk {
        let (mut slip, mut chunk) = (Slip::default(), Chunk::default());
        for record in records {
            slip.write(record);
            chunk.push(&slip);
        }
        chunk
    }

    #[test]
    fn what_goes_in_comes_out_up_to_where_it_is_torn() {
        let chunk = chunk(&[received("1", None), received("2", Some("4711"))]);
        let both = records(&chunk.records);
        let ids: Vec<_> = both.iter().map(|record| &*record.id).collect();
        assert_eq!(ids, ["1", "2"]);
        assert!(matches!(&both[1].what, What::Received(received) if received.subject.as_deref() == Some("4711")));
        let torn = &chunk.records[..chunk.records.len() - 1];
        assert_eq!(records(torn), both[..1]);
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
