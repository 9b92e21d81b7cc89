//! The API, `/api/v1`: JSON in, JSON out. What is refused says why, in a sentence.

mod asked;
mod dead_letters;
mod events;
mod host;
mod plugins;
mod stats;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use http::{Method, StatusCode, Uri};

use crate::admin::Admin;
use crate::admin::refusal::Refusal;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/host", get(host::show))
        .route("/events", get(events::list))
        .route("/events/stream", get(events::stream))
        .route("/explain", get(events::explain))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/replay", post(dead_letters::replay))
        .route("/dead-letters/purge", post(dead_letters::purge))
        .route("/dead-letters/{id}", get(dead_letters::show).delete(dead_letters::remove_one))
        .route("/dead-letters/{id}/replay", post(dead_letters::replay_one))
        .route("/stats", get(stats::list))
        .route("/stats/stream", get(stats::stream))
        .route("/plugins", get(plugins::list))
        .route("/plugins/{name}/pause", post(plugins::pause))
        .route("/plugins/{name}/resume", post(plugins::resume))
        .route("/plugins/{name}/reload", post(plugins::reload))
}

pub(super) async fn nothing(uri: Uri) -> Refusal {
    Refusal::not_found(format!("there is nothing at {}", uri.path()))
}

pub(super) async fn not_so(method: Method, uri: Uri) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for {}", uri.path()))
}
