//! `/host`: identity and condition of this host. `/reload`: reads its settings again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value, json};
use supervisor::reload::Reloaded;

use crate::refusal::Refusal;
use crate::{Admin, rfc_3339};

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let (sources, host) = (&admin.sources, &admin.sources.host);
    let reasons = host.reasons();
    let (url, since) = match host.status.look().connected {
        Some((url, since)) => (url.to_string(), Some(rfc_3339(since))),
        None => (host.broker.to_string(), None),
    };
    let source = &host.config.source;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "process": std::process::id(),
        "started_at": rfc_3339(admin.started_at),
        "broker": { "url": url, "connected": since.is_some(), "since": since },
        "source": { "exchange": source.exchange, "queue": source.names.source() },
        "plugins_folder": host.config.plugins,
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "journal": sources.journal.is_on(),
        "otlp": host.config.tracing.is_on(),
    }))
}

pub(super) async fn reload(State(admin): State<Arc<Admin>>) -> Result<Json<Reloaded>, Refusal> {
    let settings = Arc::clone(&admin.sources.settings);
    // A reload that ends halfway would forget which settings it has changed.
    let reloaded = admin.complete(async move { settings.reload().await }).await?;
    reloaded.map(Json).map_err(|problems| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, problems))
}
