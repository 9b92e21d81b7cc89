//! Replaying: first the copy, confirmed by the broker, then the removal.

use std::collections::BTreeSet;

use anyhow::Context as _;
use broker::{Broker, Message, Target};
use futures_util::stream::{self, StreamExt as _};

use crate::config::HostConfig;
use crate::dead_letters::browse::Letter;
use crate::delivery::Trail;
use crate::delivery::clock::now;

/// Letters that are on their way at once: confirmations come in batches.
const AT_ONCE: usize = 64;

/// Replays the letters; those that could not be are given back. How many were, and the first error.
pub(super) async fn all(broker: &Broker, config: &HostConfig, letters: Vec<Letter>) -> (usize, anyhow::Result<()>) {
    let plugins: BTreeSet<_> =
        letters.iter().filter_map(|letter| Some(letter.trail.recipient.as_ref()?.plugin.clone())).collect();
    for plugin in plugins {
        if let Err(error) = broker.declare_plugin(&config.source.names, &plugin).await {
            return (0, Err(error.into()));
        }
    }
    let now = now();
    let mut done = 0;
    let mut replays = stream::iter(letters)
        .map(|letter| async move {
            let trail = letter.trail.clone().next_round(now);
            publish(broker, config, &trail, &letter.message).await?;
            letter.remove();
            anyhow::Ok(())
        })
        .buffer_unordered(AT_ONCE);
    while let Some(replayed) = replays.next().await {
        match replayed {
            Ok(()) => done += 1,
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

/// One whose trail is ready.
pub(super) async fn one(broker: &Broker, config: &HostConfig, trail: &Trail, message: &Message) -> anyhow::Result<()> {
    if let Some(recipient) = &trail.recipient {
        broker.declare_plugin(&config.source.names, &recipient.plugin).await?;
    }
    publish(broker, config, trail, message).await
}

async fn publish(broker: &Broker, config: &HostConfig, trail: &Trail, message: &Message) -> anyhow::Result<()> {
    let names = &config.source.names;
    let published = match &trail.recipient {
        Some(recipient) => broker.publish(Target::Queue(&names.plugin(&recipient.plugin)), &trail.write(message)).await,
        None => broker.publish(Target::Queue(names.source()), &Trail::erase(message)).await,
    };
    published.context("a letter could not be replayed, and stays where it is")
}
