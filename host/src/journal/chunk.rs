//! A chunk is many records in one row of the file, with a filter that says which events are surely not in
//! it. One row for each record would cost more than the delivery that it tells of.

use crate::journal::record::{Record, What};

/// Bits of the filter for each key in it, and probes: one chunk in a hundred is read in vain.
const BITS_A_KEY: usize = 10;
const PROBES: u64 = 7;

/// Records, encoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    pub(super) first_at: i64,
    pub(super) last_at: i64,
    pub(super) records: Vec<u8>,
    keys: Vec<u64>,
}

impl Chunk {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn push(&mut self, record: &Record) {
        let length = self.records.len();
        match postcard::to_extend(record, std::mem::take(&mut self.records)) {
            Ok(records) => self.records = records,
            // Memory is all that it needs.
            Err(_) => return,
        }
        if length == 0 {
            self.first_at = record.at;
        }
        self.first_at = self.first_at.min(record.at);
        self.last_at = self.last_at.max(record.at);
        self.keys.push(key(&record.id));
        if let What::Received(received) = &record.what
            && let Some(subject) = &received.subject
        {
            self.keys.push(key(subject));
        }
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

    fn received(id: &str, subject: Option<&str>) -> Record {
        Record {
            at: 5,
            id: id.into(),
            source: "shop".into(),
            event_type: "OrderCreated".into(),
            what: What::Received(Received {
                subject: subject.map(Into::into),
                time: None,
                exchange: "orders".into(),
                routing_key: "order.created".into(),
                redelivered: false,
                bytes: 200,
                routed: Vec::new(),
                not_subscribed: 1,
            }),
        }
    }

    #[test]
    fn what_goes_in_comes_out_up_to_where_it_is_torn() {
        let mut chunk = Chunk::default();
        let both = [received("1", None), received("2", Some("4711"))];
        for record in &both {
            chunk.push(record);
        }
        assert_eq!(records(&chunk.records), both);
        let torn = &chunk.records[..chunk.records.len() - 1];
        assert_eq!(records(torn), both[..1]);
    }

    #[test]
    fn a_filter_misses_nothing_and_is_seldom_wrong() {
        let mut chunk = Chunk::default();
        for id in 0..500 {
            chunk.push(&received(&format!("id-{id}"), Some(&format!("order-{id}"))));
        }
        let filter = chunk.filter();
        for id in 0..500 {
            assert!(may_have(&filter, key(&format!("id-{id}"))) && may_have(&filter, key(&format!("order-{id}"))));
        }
        let wrong = (500..10_500).filter(|id| may_have(&filter, key(&format!("id-{id}")))).count();
        assert!(wrong < 300, "{wrong} of 10,000");
        assert!(!may_have(&[], 1));
    }
}
