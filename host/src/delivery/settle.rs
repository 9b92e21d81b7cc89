//! Settling makes outcomes durable. Only when that is confirmed may the broker forget the message.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use broker::{Broker, BrokerError, Message, PublishError, Source, Target, Value};
use tracing::warn;

use crate::delivery::trail::{self, Trail};

/// Between two tries to write what the broker refuses (because a queue is full, say).
const REFUSED_PAUSE_MIN: Duration = Duration::from_millis(200);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(30);
const LEFT_BEHIND_MAX: usize = 50;
const LEFT_BEHIND_CHARACTERS_MAX: usize = 100;

/// Where a delivery goes that is not done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Onward<'a> {
    /// To the plugin's own queue, after a wait.
    Later { plugin: &'a str, delay: Duration },
    /// To the plugin's own queue.
    Spill { plugin: &'a str },
    /// To the dead letters.
    Dead,
}

/// Writes the message with its trail to where it goes on, and returns when the broker has
/// confirmed it. An error means that the session is lost; the message will come again.
pub(super) async fn pass_on(
    broker: &Broker,
    source: &Source,
    message: &Message,
    trail: &Trail,
    onward: Onward<'_>,
) -> Result<(), BrokerError> {
    write(broker, source, trail.write(message), onward).await
}

/// The same of a message that carries its trail already.
pub(super) async fn write(
    broker: &Broker,
    source: &Source,
    mut carried: Message,
    onward: Onward<'_>,
) -> Result<(), BrokerError> {
    let names = &source.names;
    let (queue, plugin) = match onward {
        Onward::Later { plugin, .. } | Onward::Spill { plugin } => (names.plugin(plugin), Some(plugin)),
        Onward::Dead => (names.dead(), None),
    };
    let target = match onward {
        Onward::Later { plugin, delay } => Target::PluginLater { names, plugin, delay },
        Onward::Spill { .. } | Onward::Dead => Target::Queue(&queue),
    };
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(REFUSED_PAUSE_MIN)
        .with_max_delay(REFUSED_PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build();
    loop {
        let error = match broker.forward(target, &carried).await {
            Ok(()) => return Ok(()),
            Err(PublishError::Unconfirmed(error)) => return Err(error),
            Err(error) => error,
        };
        let pause = pauses.next().unwrap_or(REFUSED_PAUSE_MAX);
        warn!(queue, "cannot pass a message on: {error}; next try in {} ms", pause.as_millis());
        tokio::time::sleep(pause).await;
        match error {
            // Somebody deleted it.
            PublishError::NotFound { .. } | PublishError::Unroutable { .. } => {
                let made = match plugin {
                    Some(plugin) => broker.declare_plugins(names, &[plugin]).await,
                    None => broker.declare_source(source).await,
                };
                match made {
                    Ok(_) => {}
                    Err(error @ BrokerError::Lost(_)) => return Err(error),
                    Err(error) => warn!(queue, "cannot make what is missing: {error}"),
                }
            }
            PublishError::Refused(_) => lighten(&mut carried, broker.headers_bytes_max()),
            PublishError::Unconfirmed(error) => return Err(error),
        }
    }
}

/// Headers travel in one frame. If what came with the message leaves too little room for the
/// trail, the largest headers that are not ours stay behind, and the message says which.
fn lighten(message: &mut Message, headers_bytes_max: usize) {
    // Names and values are counted here, their types and lengths are not.
    let safe = headers_bytes_max / 2;
    let headers = &mut message.properties.headers;
    let mut sizes: Vec<_> = headers.iter().map(|(name, value)| (name.len() + size(value), name.clone())).collect();
    let mut total: usize = sizes.iter().map(|(size, _)| size).sum();
    if total <= safe {
        return;
    }
    sizes.sort();
    let mut left_behind = Vec::new();
    while let Some((size, name)) = sizes.pop().filter(|_| total > safe / 2) {
        if !name.starts_with(trail::PREFIX) {
            headers.remove(&name);
            total -= size;
            left_behind.push(Value::from(name.chars().take(LEFT_BEHIND_CHARACTERS_MAX).collect::<String>()));
        }
    }
    left_behind.truncate(LEFT_BEHIND_MAX);
    headers.insert(trail::LEFT_BEHIND.to_owned(), Value::List(left_behind));
}

/// About as many bytes as it takes in a frame; what is nested takes more as JSON than there.
fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        other => serde_json::to_vec(other).map_or(0, |json| json.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_leave_no_room_stay_behind() {
        const FRAME: usize = 128 << 10;
        let mut message = Message::json("{}");
        let headers = &mut message.properties.headers;
        headers.insert("small".to_owned(), "x".into());
        headers.insert("x-notify-reason".to_owned(), "r".repeat(4000).into());
        lighten(&mut message, FRAME);
        assert_eq!(message.properties.headers.len(), 2, "there is nothing to do");
        message.properties.headers.insert("large".to_owned(), "x".repeat(125_000).into());
        lighten(&mut message, FRAME);
        let names: Vec<_> = message.properties.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["small", "x-notify-left-behind", "x-notify-reason"]);
        assert_eq!(message.properties.headers["x-notify-left-behind"], Value::List(vec!["large".into()]));
        // A connection with small frames.
        message.properties.headers.insert("medium".to_owned(), "x".repeat(5_000).into());
        lighten(&mut message, 8 << 10);
        assert!(!message.properties.headers.contains_key("medium"));
    }
}
