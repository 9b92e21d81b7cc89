//! Watches the two connections of a session. They are lost together, and RabbitMQ's notices about
//! them go to the log.

use std::sync::Arc;

use futures_util::stream::{Stream, StreamExt as _};
use lapin::Event;
use tracing::{info, warn};

use crate::amqp::connection::{AmqpConnection, refusal};

/// Returns when one connection is lost, after closing the other.
pub(super) async fn watch(publishing: Arc<AmqpConnection>, consuming: Arc<AmqpConnection>) {
    let (publishing_events, consuming_events) = (publishing.events(), consuming.events());
    tokio::select! {
        () = until_lost(&publishing, publishing_events) => consuming.lose_with(&publishing),
        () = until_lost(&consuming, consuming_events) => publishing.lose_with(&consuming),
    }
    publishing.go();
    consuming.go();
}

async fn until_lost(connection: &AmqpConnection, events: impl Stream<Item = Event>) {
    let mut events = std::pin::pin!(events);
    let mut blocked = false;
    while let Some(event) = events.next().await {
        match event {
            // See <https://www.rabbitmq.com/docs/connection-blocked>.
            Event::ConnectionBlocked(reason) if !blocked => {
                blocked = true;
                warn!("the broker takes no messages for now ({reason}); what is to be published waits");
            }
            Event::ConnectionUnblocked if blocked => {
                blocked = false;
                info!("the broker takes messages again");
            }
            // A refusal closes only a channel.
            Event::Error(error) if refusal(&error).is_none() => {
                // Records the reason.
                let _ = connection.lost(Some(&error));
                return;
            }
            // The enum is non-exhaustive.
            _ => {}
        }
    }
}
