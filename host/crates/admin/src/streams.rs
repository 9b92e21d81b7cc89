//! Streams of server-sent events: a bounded number, and none outlives the host's work.

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

/// At once, of all kinds.
const STREAMS_MAX: usize = 32;
/// So that who listens, and what is in between, knows that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) struct Streams {
    room: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Streams {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { room: Arc::new(Semaphore::new(STREAMS_MAX)), stop }
    }

    /// Sends what comes, each under this name, until the host stops.
    pub(super) fn answer<T: Serialize + Send + 'static>(
        &self,
        name: &'static str,
        items: impl Stream<Item = T> + Send + 'static,
    ) -> Result<Response, Refusal> {
        self.answer_named(items.map(move |item| (name, item)))
    }

    /// The same, each under its own name.
    pub(super) fn answer_named<T: Serialize + Send + 'static>(
        &self,
        items: impl Stream<Item = (&'static str, T)> + Send + 'static,
    ) -> Result<Response, Refusal> {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            let sentence = format!("{STREAMS_MAX} streams are open already, and there is room for no more: close some");
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, sentence));
        };
        let events = items
            .map(move |(name, item)| {
                let _place = &place;
                Event::default().event(name).json_data(item)
            })
            .take_until(self.stop.clone().cancelled_owned());
        Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
    }
}

/// What is sent to all. Who falls behind misses some.
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
