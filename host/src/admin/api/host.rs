//! `/host`: what this host is, and how it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::admin::api::time;

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let (vital, reasons) = (admin.vitals.look(), admin.reasons());
    let (url, since) = match vital.connected {
        Some((url, since)) => (url.to_string(), Some(time(since))),
        None => (admin.broker.to_string(), None),
    };
    let source = &admin.config.source;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "process": std::process::id(),
        "started_at": time(admin.started_at),
        "broker": { "url": url, "connected": since.is_some(), "since": since },
        "source": { "exchange": source.exchange, "queue": source.names.source() },
        "plugins_folder": admin.config.plugins,
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "journal": admin.journal.is_some(),
        "otlp": admin.config.tracing.is_on(),
    }))
}
