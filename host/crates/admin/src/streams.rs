//! Streams of server-sent events. Their number is bounded, and they end when the host stops.

use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{Stream, StreamExt as _};
use http::StatusCode;
use serde::Serialize;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use crate::refusal::Refusal;

/// Maximum number of streams at once, of all kinds.
const STREAMS_MAX: usize = 32;
/// Interval of keep-alive comments, by which clients and proxies see that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) struct Streams {
    permits: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Streams {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { permits: Arc::new(Semaphore::new(STREAMS_MAX)), stop }
    }

    /// Sends the items under one event name until the host stops.
    pub(super) fn answer<T: Serialize + Send + 'static>(
        &self,
        name: &'static str,
        items: impl Stream<Item = T> + Send + 'static,
    ) -> Result<Response, Refusal> {
        self.answer_named(items.map(move |item| (name, item)))
    }

    /// Sends the items, each under its own event name.
    pub(super) fn answer_named<T: Serialize + Send + 'static>(
        &self,
        items: impl Stream<Item = (&'static str, T)> + Send + 'static,
    ) -> Result<Response, Refusal> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            let sentence = format!("{STREAMS_MAX} streams are open already, and there is room for no more: close some");
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence));
        };
        let events = items
            .map(move |(name, item)| {
                let _permit = &permit;
                Event::default().event(name).json_data(item)
            })
            .take_until(self.stop.clone().cancelled_owned());
        Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
    }
}

/// Turns a broadcast receiver into a stream. A listener that falls behind misses items.
pub(super) fn heard<T: Clone + Send + 'static>(receiver: broadcast::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures_util::stream::unfold(receiver, |mut receiver| async {
        loop {
            match receiver.recv().await {
                Ok(item) => return Some((item, receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    })
}
