//! `/plugins`: how the plugins stand, and what the operator may do with them. The same as by `notify-host plugin`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::admin::refusal::Refusal;
use crate::config::{Capability, Grants};
use crate::control::{PluginReport, Reply, Request};

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let plugins: Vec<_> = admin.control.list().into_iter().map(|report| show(&admin, &report)).collect();
    Json(json!({ "plugins": plugins }))
}

fn show(admin: &Admin, report: &PluginReport) -> Value {
    let mut plugin = json!(report);
    let runner = admin.control.registry.get(&report.name);
    plugin["grants"] = runner.map_or(Value::Null, |runner| granted(runner.plugin().grants()));
    plugin
}

/// Secrets by their names.
fn granted(grants: &Grants) -> Value {
    let of = |capability| grants.of(capability).map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "http": of(Capability::Http),
        "mail": of(Capability::Mail),
        "secrets": of(Capability::Secret),
        "networks": grants.networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

pub(super) async fn pause(admin: State<Arc<Admin>>, Path(plugin): Path<String>) -> Result<Json<Value>, Refusal> {
    act(admin, Request::Pause { plugin: plugin.clone() }, &plugin).await
}

pub(super) async fn resume(admin: State<Arc<Admin>>, Path(plugin): Path<String>) -> Result<Json<Value>, Refusal> {
    act(admin, Request::Resume { plugin: plugin.clone() }, &plugin).await
}

pub(super) async fn reload(admin: State<Arc<Admin>>, Path(plugin): Path<String>) -> Result<Json<Value>, Refusal> {
    act(admin, Request::Reload { plugin: plugin.clone() }, &plugin).await
}

async fn act(State(admin): State<Arc<Admin>>, request: Request, plugin: &str) -> Result<Json<Value>, Refusal> {
    match admin.control.answer(request).await {
        Ok(Reply::Done(sentence)) => Ok(Json(json!({ "done": sentence }))),
        Ok(Reply::Plugins { .. }) => {
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "this host answered something else"))
        }
        Err(problem) => {
            let is_known = admin.control.catalog.all().contains_key(plugin);
            let status = if is_known { StatusCode::CONFLICT } else { StatusCode::NOT_FOUND };
            Err(Refusal::new(status, problem))
        }
    }
}
