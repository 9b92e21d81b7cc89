//! `/stats`: what happened in each of the last seconds.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use crate::Admin;
use crate::refusal::Refusal;
use crate::streams::heard;

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<Value> {
    Json(json!({ "samples": admin.samples.last() }))
}

pub(super) async fn stream(State(admin): State<Arc<Admin>>) -> Result<Response, Refusal> {
    admin.streams.answer("sample", heard(admin.samples.subscribe()))
}
