//! Settling makes outcomes durable, and only then lets the broker forget the message.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use broker::{Broker, BrokerError, Delivery, PublishError, QueueNames, Target};
use tracing::warn;

use crate::delivery::dead_letter::{Obituary, dead_letter};

/// Between two tries to write a dead letter that the broker refuses (a full queue, say).
const REFUSED_PAUSE_MIN: Duration = Duration::from_millis(200);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Writes the dead letters, then acknowledges. An error means that the session is lost and the
/// message will come again.
pub(super) async fn settle(
    broker: &Broker,
    names: &QueueNames,
    delivery: Delivery,
    obituaries: Vec<Obituary>,
) -> Result<(), BrokerError> {
    for obituary in obituaries {
        let letter = dead_letter(&delivery, obituary);
        let publish = || async { broker.publish(Target::Queue(&names.dead()), &letter).await };
        let pauses = ExponentialBuilder::default()
            .with_min_delay(REFUSED_PAUSE_MIN)
            .with_max_delay(REFUSED_PAUSE_MAX)
            .with_jitter()
            .without_max_times();
        let published = publish
            .retry(pauses)
            .when(|error| !matches!(error, PublishError::Unconfirmed(_)))
            .notify(|error, pause| warn!(%error, "cannot write a dead letter; next try in {} ms", pause.as_millis()))
            .await;
        if let Err(PublishError::Unconfirmed(error)) = published {
            return Err(error);
        }
    }
    // Last: a crash before this repeats the calls, which plugins tolerate by the idempotency key;
    // the other order would lose the event.
    delivery.receipt.ack();
    Ok(())
}
