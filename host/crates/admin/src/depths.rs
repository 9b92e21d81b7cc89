//! Queue depths. One poller asks the broker through delivery's own session; readers get the last result.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use broker::Broker;
use event::clock::now;

use crate::Admin;

/// Poll interval.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time limit for the answer about one queue. Without an answer its depth is unknown.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// The last result. Unknown depths are absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Depths {
    pub(super) source: Option<u64>,
    pub(super) dead: Option<u64>,
    pub(super) plugins: BTreeMap<String, Depth>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    pub(super) messages: u64,
    /// Since when the queue has not been empty, as far as this host has seen, in milliseconds since 1970.
    since: Option<i64>,
}

impl Depth {
    fn next(self, messages: u64, now: i64) -> Self {
        Self { messages, since: (messages > 0).then(|| self.since.unwrap_or(now)) }
    }

    /// Returns the maximum age of the oldest message, in milliseconds. `taken` is when the message taken last had been
    /// queued; queues are first in, first out, so everything left came later.
    pub(super) fn age_max(self, taken: i64, now: i64) -> Option<u64> {
        self.since.map(|since| u64::try_from(now.saturating_sub(since.max(taken))).unwrap_or(0))
    }
}

pub(super) type LastDepths = Mutex<Depths>;

/// Polls for as long as the future is polled.
pub(super) async fn watch(admin: &Admin) {
    loop {
        let before = last(&admin.depths);
        let found = match admin.sources.host.status.broker() {
            Some(broker) => look(admin, &broker, &before).await,
            None => Depths { plugins: BTreeMap::new(), ..Depths::default() },
        };
        *admin.depths.lock().unwrap_or_else(PoisonError::into_inner) = found;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub(super) fn last(depths: &LastDepths) -> Depths {
    depths.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn look(admin: &Admin, broker: &Broker, before: &Depths) -> Depths {
    let names = &admin.sources.host.config.source.names;
    let mut found = Depths {
        source: ask(broker, names.source()).await,
        dead: ask(broker, &names.dead()).await,
        plugins: BTreeMap::new(),
    };
    // Include plugins that are not running: events may wait for them.
    for plugin in admin.sources.host.control.catalog.all().into_keys() {
        if let Some(messages) = ask(broker, &names.plugin(&plugin)).await {
            let depth = before.plugins.get(&plugin).copied().unwrap_or_default();
            found.plugins.insert(plugin, depth.next(messages, now()));
        }
    }
    found
}

async fn ask(broker: &Broker, queue: &str) -> Option<u64> {
    let answer = tokio::time::timeout(ANSWER_TIME_MAX, broker.inspect(queue)).await;
    Some(answer.ok()?.ok()??.ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_counted_from_when_the_queue_was_last_empty_or_from_what_came_out_of_it() {
        let empty = Depth::default().next(0, 10);
        assert_eq!(empty.age_max(5, 20), None);
        let some = empty.next(3, 1_000).next(2, 2_000);
        assert_eq!(some.messages, 2);
        assert_eq!(some.age_max(0, 5_000), Some(4_000));
        assert_eq!(some.age_max(4_500, 5_000), Some(500), "what is behind that came later");
        assert_eq!(some.age_max(9_000, 5_000), Some(0), "clocks differ");
        assert_eq!(some.next(0, 6_000).next(1, 7_000).age_max(0, 7_500), Some(500));
    }
}
