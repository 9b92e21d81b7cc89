//! `/host`: identity and condition of this host.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::{Admin, rfc_3339};

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let (sources, reasons) = (&admin.sources, admin.reasons());
    let (url, since) = match sources.status.look().connected {
        Some((url, since)) => (url.to_string(), Some(rfc_3339(since))),
        None => (sources.broker.to_string(), None),
    };
    let source = &sources.config.source;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "process": std::process::id(),
        "started_at": rfc_3339(admin.started_at),
        "broker": { "url": url, "connected": since.is_some(), "since": since },
        "source": { "exchange": source.exchange, "queue": source.names.source() },
        "plugins_folder": sources.config.plugins,
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "journal": sources.journal.is_on(),
        "otlp": sources.config.tracing.is_on(),
    }))
}
