//! The exchange and the queue of a load that names no exchange: its made-up orders must not reach anybody who waits for
//! real ones.
//!
//! Both have one fixed name, so that a host can be pointed at them on purpose, and both stay, empty. Events that no
//! consumer takes are removed now and then, and at the end, so that neither a long load nor one that was killed fills the
//! broker's disk.

use std::fmt;

use broker::{ExchangeKind, QueueNames, Source};
use serde::Serialize;

use crate::exit::Failure;
use crate::own_exchange::OWN_EXCHANGE as NAME;
use crate::publish::Publisher;

/// After so many events it looks whether anybody consumes them.
pub(super) const LOOK_EVERY: u64 = 10_000;

/// The load's own queue.
pub(super) struct OwnQueue<'p> {
    publisher: &'p Publisher,
}

/// What became of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Fate {
    /// Who consumed the queue at the end.
    pub(super) consumers: u64,
    /// How many events wait in it for them.
    pub(super) waiting: u64,
    /// How many were removed, because nobody consumed it.
    pub(super) removed: u64,
}

impl<'p> OwnQueue<'p> {
    /// Makes exchange and queue where they are missing, and removes what an earlier load left behind.
    pub(super) async fn prepare(publisher: &'p Publisher) -> Result<Self, Failure> {
        let source = Source {
            exchange: NAME.to_owned(),
            kind: ExchangeKind::Topic,
            names: QueueNames::new(NAME),
            bindings: vec!["#".to_owned()],
        };
        let queue = Self { publisher };
        // The warnings say what could lose messages. These may be lost.
        publisher.ask(publisher.broker().declare_source(&source)).await.map_err(Failure::own_queue)?;
        queue.tidy().await?;
        Ok(queue)
    }

    /// Removes the events, unless somebody consumes them.
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
            // Somebody has removed it, and publishing fails.
            None => Ok(Fate::default()),
        }
    }
}

impl Fate {
    /// This one, after an earlier one.
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
