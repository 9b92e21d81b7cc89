//! The exchange and queue of a load without `--exchange`. They keep generated orders away from consumers of real ones.
//!
//! Both have a fixed name, so that a host can be pointed at them on purpose, and both remain afterwards, empty.
//! Events without a consumer are removed at intervals and at the end. So neither a long load nor one that was killed
//! fills the broker's disk.

use std::fmt;

use broker::{ExchangeKind, QueueNames, Source};
use serde::Serialize;

use crate::exit::Failure;
use crate::own_exchange::OWN_EXCHANGE as NAME;
use crate::publish::Publisher;

/// Number of events between two checks for a consumer.
pub(super) const LOOK_EVERY: u64 = 10_000;

/// The load's own queue.
pub(super) struct OwnQueue<'p> {
    publisher: &'p Publisher,
}

/// Outcome of the events in the load's own queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Fate {
    /// Number of consumers at the end.
    pub(super) consumers: u64,
    /// Number of events that wait for them.
    pub(super) waiting: u64,
    /// Number of events removed because the queue had no consumer.
    pub(super) removed: u64,
}

impl<'p> OwnQueue<'p> {
    /// Declares exchange and queue if they are missing, and removes events left by an earlier load.
    pub(super) async fn prepare(publisher: &'p Publisher) -> Result<Self, Failure> {
        let source = Source {
            exchange: NAME.to_owned(),
            kind: ExchangeKind::Topic,
            names: QueueNames::new(NAME),
            bindings: vec!["#".to_owned()],
        };
        let queue = Self { publisher };
        // Ignore the warnings about settings that could lose messages. These events may be lost.
        publisher.ask(publisher.broker().declare_source(&source)).await.map_err(Failure::own_queue)?;
        queue.tidy().await?;
        Ok(queue)
    }

    /// Removes the events, unless the queue has a consumer.
    pub(super) async fn tidy(&self) -> Result<Fate, Failure> {
        let broker = self.publisher.broker();
        let state = self.publisher.ask(broker.inspect(NAME)).await.map_err(Failure::own_queue)?;
        match state {
            Some(state) if state.consumers > 0 => {
                Ok(Fate { consumers: state.consumers, waiting: state.ready, removed: 0 })
            }
            Some(_) => {
                let removed = self.publisher.ask(broker.purge(NAME)).await.map_err(Failure::own_queue)?;
                Ok(Fate { removed, ..Fate::default() })
            }
            // The queue was deleted; publishing will fail and report it.
            None => Ok(Fate::default()),
        }
    }
}

impl Fate {
    /// Combines this outcome with an earlier one.
    pub(super) fn after(self, earlier: Self) -> Self {
        Self { removed: self.removed.saturating_add(earlier.removed), ..self }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { consumers, waiting, .. } = self;
        if *consumers == 0 {
            write!(f, "queue      {NAME}: no host consumes it, so the events were removed again")
        } else {
            let plural = if *consumers == 1 { "" } else { "s" };
            write!(f, "queue      {NAME}: {consumers} consumer{plural}, {waiting} events wait")
        }
    }
}
