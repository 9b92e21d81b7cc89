//! The API, `/api/v1`: JSON in, JSON out. What is refused says why, in a sentence.

mod host;
mod plugins;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use http::{Method, StatusCode, Uri};

use crate::admin::Admin;
use crate::admin::refusal::Refusal;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/host", get(host::show))
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

/// As all times are shown.
fn time(at: jiff::Timestamp) -> String {
    format!("{at:.3}")
}
