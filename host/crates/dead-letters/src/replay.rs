//! Replays dead letters: publishes a copy, waits for the broker's confirmation, then removes the letter.

use std::collections::BTreeSet;

use broker::{Broker, Message, PublishError, Target};
use config::HostConfig;
use delivery::DeliveryHeaders;
use event::clock::now;
use event::{Arrived, decode};
use futures_util::stream::{self, StreamExt as _};

use crate::browse::Letter;
use crate::session::within_time;

/// Maximum number of letters published at once. Confirmations arrive in batches.
const AT_ONCE: usize = 64;

/// The result of a replay.
#[derive(Debug, Default)]
pub struct Tally {
    pub done: usize,
    /// Letters that stay in the queue, each with its id and the reason.
    pub stayed: Vec<(String, String)>,
    /// The error that ended the replay early. Letters not yet replayed stay in the queue too.
    pub lost: Option<anyhow::Error>,
}

/// Replays the letters. One that fails does not stop the others. Calls `told` with the number of replayed
/// letters and the total.
pub async fn all(
    broker: &Broker,
    config: &HostConfig,
    letters: Vec<Letter>,
    mut told: impl FnMut(usize, usize),
) -> Tally {
    let mut tally = Tally::default();
    let plugins = plugins_of(&letters);
    let names: Vec<_> = plugins.iter().map(String::as_str).collect();
    if let Err(error) = within_time(broker.declare_plugins(&config.source.names, &names)).await {
        tally.lost = Some(error.into());
        return tally;
    }
    let (total, now) = (letters.len(), now());
    let mut replays = stream::iter(letters)
        .map(|letter| async move {
            let delivery_headers = letter.delivery_headers.clone().next_round(now);
            publish(broker, config, &delivery_headers, &letter.message)
                .await
                .map_err(|error| (letter.summary.id.clone(), error))?;
            letter.remove();
            Ok(())
        })
        .buffer_unordered(AT_ONCE);
    while let Some(replayed) = replays.next().await {
        match replayed {
            Ok(()) => tally.done += 1,
            Err((_, Failure::Lost(error))) => {
                tally.lost = Some(error);
                break;
            }
            Err((id, Failure::Refused(reason))) => tally.stayed.push((id, reason)),
        }
        told(tally.done, total);
    }
    tally
}

/// Returns the plugins that the letters are for.
pub fn plugins_of(letters: &[Letter]) -> BTreeSet<String> {
    letters.iter().filter_map(|letter| Some(letter.delivery_headers.recipient.as_ref()?.plugin.clone())).collect()
}

/// Replays one message with these delivery headers.
pub async fn one(
    broker: &Broker,
    config: &HostConfig,
    delivery_headers: &DeliveryHeaders,
    message: &Message,
) -> anyhow::Result<()> {
    if let Some(recipient) = &delivery_headers.recipient {
        within_time(broker.declare_plugins(&config.source.names, &[&recipient.plugin])).await?;
    }
    publish(broker, config, delivery_headers, message).await.map_err(|failure| match failure {
        Failure::Refused(reason) => anyhow::anyhow!(reason),
        Failure::Lost(error) => error,
    })
}

enum Failure {
    /// This letter cannot be replayed.
    Refused(String),
    /// The session is lost, so no letter can be replayed.
    Lost(anyhow::Error),
}

async fn publish(
    broker: &Broker,
    config: &HostConfig,
    delivery_headers: &DeliveryHeaders,
    message: &Message,
) -> Result<(), Failure> {
    let names = &config.source.names;
    let published = if let Some(recipient) = &delivery_headers.recipient {
        let (queue, message) = (names.plugin(&recipient.plugin), delivery_headers.write(message));
        within_time(broker.publish(Target::Queue(&queue), &message)).await
    } else {
        let message = DeliveryHeaders::erase(message);
        readable_at_source(&message, delivery_headers, config).map_err(Failure::Refused)?;
        within_time(broker.publish(Target::Queue(names.source()), &message)).await
    };
    published.map_err(|error| match error {
        PublishError::Unconfirmed(error) => {
            Failure::Lost(anyhow::Error::new(error).context("not all is replayed; what is not stays where it is"))
        }
        refused => Failure::Refused(refused.to_string()),
    })
}

/// Checks that a message without a recipient decodes as an event, because it would only die again otherwise. It
/// is published straight to the source's queue, so its routing key becomes the queue's name. The rules must not
/// take that name for the event type.
fn readable_at_source(
    message: &Message,
    delivery_headers: &DeliveryHeaders,
    config: &HostConfig,
) -> Result<(), String> {
    let came = Arrived { message, exchange: &delivery_headers.exchange, routing_key: &delivery_headers.routing_key };
    let event = decode(came, &config.rules)
        .map_err(|error| format!("{error}, by the rules of this configuration ([decode]); edit or purge it"))?;
    let comes = Arrived { message, exchange: "", routing_key: config.source.names.source() };
    match decode(comes, &config.rules) {
        Ok(again) if again.event_type == event.event_type => Ok(()),
        _ => Err(format!(
            "its type {:?} is only in the routing key, which a replay does not keep: publish it anew, or edit it",
            event.event_type
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_die_again_or_change_its_type_is_not_replayed() {
        for (body, routing_key, problem) in [
            (r#"{"event":"E"}"#, "", None),
            (r#"{"x":1}"#, "", Some("says nowhere what type")),
            (r#"{"x":1}"#, "order.created", Some("only in the routing key")),
            ("{", "order.created", Some("not JSON")),
        ] {
            let delivery_headers = DeliveryHeaders {
                routing_key: routing_key.to_owned(),
                ..DeliveryHeaders::new("orders".to_owned(), "order.created".to_owned(), 1)
            };
            let readable =
                readable_at_source(&Message::json(body.to_owned()), &delivery_headers, &HostConfig::default());
            match problem {
                None => assert_eq!(readable, Ok(())),
                Some(problem) => assert!(readable.as_ref().unwrap_err().contains(problem), "{readable:?}"),
            }
        }
    }
}
