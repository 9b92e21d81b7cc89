//! Decides which acknowledgements to send, and when.
//!
//! RabbitMQ processes one acknowledgement for all deliveries up to a tag several times faster than
//! one for each. So the tracker waits a moment for the longest run of settled deliveries, starting
//! at the oldest. An unsettled delivery must not hold up the ones behind it, though: a settled
//! delivery that has waited long enough is acknowledged alone.
//!
//! The tracker remembers only unacknowledged deliveries, which are at most the prefetch window. It
//! has no clock and sends nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long a run of settled deliveries may grow.
pub(super) const GATHER_TIME: Duration = Duration::from_millis(5);
/// How long a settled delivery waits for an older, unsettled one.
pub(super) const STUCK_TIME: Duration = Duration::from_millis(50);

/// One acknowledgement to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    /// Whether it also covers all older deliveries.
    pub(super) multiple: bool,
}

#[derive(Debug)]
pub(super) struct AckTracker {
    /// Unacknowledged deliveries by tag, with the time at which each was settled.
    outstanding: BTreeMap<u64, Option<Instant>>,
    run: Option<Run>,
    run_length_max: usize,
    /// Settled out of order, oldest first. May contain tags that have been acknowledged since.
    stuck: VecDeque<(Instant, u64)>,
}

/// The oldest outstanding deliveries, as long as they are settled without a gap.
#[derive(Clone, Copy, Debug)]
struct Run {
    last: u64,
    length: usize,
    /// When the first of them was settled. A delivery that has waited for an older one has waited long enough.
    since: Instant,
}

impl AckTracker {
    /// Creates a tracker; `run_length_max` settled deliveries are acknowledged without waiting for more.
    pub(super) fn new(run_length_max: usize) -> Self {
        Self { outstanding: BTreeMap::new(), run: None, run_length_max: run_length_max.max(1), stuck: VecDeque::new() }
    }

    /// Records a new delivery; tags only grow.
    pub(super) fn deliver(&mut self, tag: u64) {
        self.outstanding.insert(tag, None);
    }

    /// Records that a delivery is settled.
    pub(super) fn settle(&mut self, tag: u64, now: Instant) {
        let Some(settled) = self.outstanding.get_mut(&tag) else { return };
        *settled = Some(now);
        if !self.extend_run() && self.run.is_none_or(|run| run.last < tag) {
            self.stuck.push_back((now, tag));
        }
    }

    /// Returns the acknowledgements to send now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Ack> {
        let is_due = |run: &Run| run.length >= self.run_length_max || now >= run.since + GATHER_TIME;
        let mut acks: Vec<_> = self.run.filter(is_due).map(|run| self.take_run(run)).into_iter().collect();
        while let Some(&(since, tag)) = self.stuck.front() {
            if self.is_stuck(tag) {
                if now < since + STUCK_TIME {
                    break;
                }
                self.outstanding.remove(&tag);
                acks.push(Ack { tag, multiple: false });
            }
            self.stuck.pop_front();
        }
        acks
    }

    /// Returns acknowledgements for all settled deliveries, at once.
    pub(super) fn flush(&mut self) -> Vec<Ack> {
        let mut acks: Vec<_> = self.run.map(|run| self.take_run(run)).into_iter().collect();
        self.stuck.clear();
        let settled = self.outstanding.extract_if(.., |_, settled| settled.is_some());
        acks.extend(settled.map(|(tag, _)| Ack { tag, multiple: false }));
        acks
    }

    /// Returns when [`Self::due`] has something to send, if nothing happens before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let run = self.run.map(|run| run.since + GATHER_TIME);
        let stuck = self.stuck.front().map(|(since, _)| *since + STUCK_TIME);
        run.into_iter().chain(stuck).min()
    }

    /// Extends the run, and returns whether it became longer.
    fn extend_run(&mut self) -> bool {
        let first = self.run.map_or(0, |run| run.last + 1);
        let mut run = self.run;
        for (&tag, settled) in self.outstanding.range(first..) {
            let Some(settled) = *settled else { break };
            let (length, since) = run.map_or((0, settled), |run| (run.length, run.since.min(settled)));
            run = Some(Run { last: tag, length: length + 1, since });
        }
        let longer = run.map(|run| run.last) != self.run.map(|run| run.last);
        self.run = run;
        longer
    }

    fn take_run(&mut self, run: Run) -> Ack {
        self.run = None;
        self.outstanding = self.outstanding.split_off(&(run.last + 1));
        Ack { tag: run.last, multiple: run.length > 1 }
    }

    /// Returns whether a delivery is settled, unacknowledged and outside the run.
    fn is_stuck(&self, tag: u64) -> bool {
        self.run.is_none_or(|run| run.last < tag) && self.outstanding.contains_key(&tag)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn one(tag: u64) -> Ack {
        Ack { tag, multiple: false }
    }

    fn up_to(tag: u64) -> Ack {
        Ack { tag, multiple: true }
    }

    fn tracker(run_length_max: usize, delivered: u64) -> AckTracker {
        let mut tracker = AckTracker::new(run_length_max);
        (1..=delivered).for_each(|tag| tracker.deliver(tag));
        tracker
    }

    #[test]
    fn a_full_run_is_acknowledged_at_once_and_with_one_frame() {
        let (mut tracker, now) = (tracker(3, 9), Instant::now());
        for tag in [2, 1] {
            tracker.settle(tag, now);
            assert_eq!(tracker.due(now), []);
        }
        tracker.settle(3, now);
        assert_eq!(tracker.due(now), [up_to(3)]);
        assert_eq!(tracker.flush(), []);
    }

    #[test]
    fn a_short_run_waits_for_the_gather_time_only() {
        let (mut tracker, now) = (tracker(100, 9), Instant::now());
        tracker.settle(1, now);
        tracker.settle(2, now + GATHER_TIME / 2);
        assert_eq!(tracker.next_due(), Some(now + GATHER_TIME));
        assert_eq!(tracker.due(now + GATHER_TIME / 2), []);
        assert_eq!(tracker.due(now + GATHER_TIME), [up_to(2)]);
        assert_eq!(tracker.next_due(), None);
    }

    #[test]
    fn a_slow_head_does_not_hold_up_those_behind_it() {
        let (mut tracker, now) = (tracker(100, 9), Instant::now());
        tracker.settle(2, now);
        tracker.settle(4, now);
        assert_eq!(tracker.due(now + GATHER_TIME), []);
        assert_eq!(tracker.due(now + STUCK_TIME), [one(2), one(4)]);
        // The tag of a cumulative acknowledgement must itself be outstanding.
        tracker.settle(1, now + STUCK_TIME);
        assert_eq!(tracker.due(now + STUCK_TIME + GATHER_TIME), [one(1)]);
        tracker.settle(3, now + STUCK_TIME);
        tracker.settle(5, now + STUCK_TIME);
        assert_eq!(tracker.flush(), [up_to(5)]);
    }

    #[test]
    fn what_has_waited_for_an_older_one_does_not_wait_for_more() {
        let (mut tracker, now) = (tracker(100, 9), Instant::now());
        tracker.settle(2, now);
        tracker.settle(1, now + STUCK_TIME / 2);
        assert_eq!(tracker.due(now + STUCK_TIME / 2), [up_to(2)]);
    }

    #[derive(Clone, Debug)]
    enum TrackerStep {
        Deliver,
        /// Settles one of the unsettled deliveries, picked by this index.
        Settle(prop::sample::Index),
        Pass(u64),
        Flush,
    }

    /// A model of RabbitMQ's rules for acknowledgements.
    #[derive(Default)]
    struct BrokerModel {
        unacknowledged: BTreeSet<u64>,
    }

    impl BrokerModel {
        fn acknowledge(&mut self, ack: Ack) -> Vec<u64> {
            assert!(self.unacknowledged.contains(&ack.tag), "unknown delivery tag {}", ack.tag);
            let gone = |tag: &u64| *tag == ack.tag || (ack.multiple && *tag < ack.tag);
            self.unacknowledged.extract_if(.., |tag| gone(tag)).collect()
        }
    }

    proptest! {
        #[test]
        fn exactly_what_is_settled_is_acknowledged_once_and_in_time(
            run_length_max in 1_usize..6,
            steps in proptest::collection::vec(
                prop_oneof![
                    4 => Just(TrackerStep::Deliver),
                    4 => any::<prop::sample::Index>().prop_map(TrackerStep::Settle),
                    2 => (0_u64..80).prop_map(TrackerStep::Pass),
                    1 => Just(TrackerStep::Flush),
                ],
                0..200,
            ),
        ) {
            let mut tracker = AckTracker::new(run_length_max);
            let mut broker = BrokerModel::default();
            let (mut unsettled, mut settled_at) = (BTreeSet::new(), BTreeMap::new());
            let (mut next, mut now) = (1, Instant::now());
            let check = |broker: &mut BrokerModel, settled_at: &mut BTreeMap<u64, Instant>, acks: Vec<Ack>| {
                for tag in acks.into_iter().flat_map(|ack| broker.acknowledge(ack)) {
                    assert!(settled_at.remove(&tag).is_some(), "{tag} was acknowledged, but not settled");
                }
            };
            for step in steps.into_iter().chain([TrackerStep::Flush]) {
                match step {
                    TrackerStep::Deliver => {
                        tracker.deliver(next);
                        broker.unacknowledged.insert(next);
                        unsettled.insert(next);
                        next += 1;
                    }
                    TrackerStep::Settle(index) if !unsettled.is_empty() => {
                        let tag = *index.get(&unsettled.iter().copied().collect::<Vec<_>>());
                        unsettled.remove(&tag);
                        settled_at.insert(tag, now);
                        tracker.settle(tag, now);
                        check(&mut broker, &mut settled_at, tracker.due(now));
                    }
                    TrackerStep::Settle(_) => {}
                    // The caller wakes only at `next_due`, so this must be enough.
                    TrackerStep::Pass(millis) => {
                        let end = now + Duration::from_millis(millis);
                        while let Some(due) = tracker.next_due().filter(|due| *due <= end) {
                            now = now.max(due);
                            check(&mut broker, &mut settled_at, tracker.due(now));
                        }
                        now = end;
                        for (tag, since) in &settled_at {
                            prop_assert!(now < *since + STUCK_TIME, "{} still waits", tag);
                        }
                    }
                    TrackerStep::Flush => {
                        check(&mut broker, &mut settled_at, tracker.flush());
                        prop_assert!(settled_at.is_empty());
                    }
                }
                prop_assert_eq!(tracker.outstanding.len(), broker.unacknowledged.len());
            }
            prop_assert_eq!(broker.unacknowledged, unsettled);
        }
    }
}
