//! `/plugins`: shows the plugins and operates them, as `notify-host plugin` does.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use config::{Capability, Grants};
use event::clock::now;
use http::StatusCode;
use serde_json::{Value, json};
use supervisor::control::{PluginReport, Reply, Request};
use telemetry::metrics::{Ended, GivenUp, SpillReason};

use crate::Admin;
use crate::depths::{self, Depths};
use crate::refusal::Refusal;

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let depths = depths::last(&admin.depths);
    let plugins: Vec<_> =
        admin.sources.control.list().into_iter().map(|report| show(&admin, &depths, &report)).collect();
    Json(json!({ "plugins": plugins }))
}

fn show(admin: &Admin, depths: &Depths, report: &PluginReport) -> Value {
    let mut plugin = json!(report);
    let runner = admin.sources.control.registry.get(&report.name);
    let metrics = runner.as_ref().map(|runner| Arc::clone(&runner.metrics)).unwrap_or_default();
    let queue = depths.plugins.get(&report.name);
    let age = queue.and_then(|depth| depth.age_max(metrics.queued_at(), now()));
    let of = |ended| metrics.attempts(ended);
    let times = admin.samples.times_of(&report.name, &metrics.attempt_times.tally());
    for (name, value) in [
        ("grants", {
            let plugin = runner.and_then(|runner| runner.plugin());
            plugin.map_or_else(|| granted(&Grants::default()), |plugin| granted(plugin.grants()))
        }),
        (
            "queue",
            json!({
                "messages": queue.map(|depth| depth.messages),
                "oldest_age_seconds": age.map(|milliseconds| milliseconds / 1000),
            }),
        ),
        (
            "counts",
            json!({
                "done": of(Ended::Done),
                "skipped": of(Ended::Skipped),
                "retry": of(Ended::Retry),
                "reject": of(Ended::Reject),
                "misconfigured": of(Ended::Misconfigured),
                "spilled": SpillReason::ALL.iter().map(|why| metrics.spills(*why)).sum::<u64>(),
                "dead": GivenUp::ALL.iter().map(|why| metrics.dead_letters(*why)).sum::<u64>(),
            }),
        ),
        ("p50_micros", json!(times.percentile(50))),
        ("p99_micros", json!(times.percentile(99))),
    ] {
        plugin[name] = value;
    }
    plugin
}

/// Formats the grants; secrets by name only.
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
    match admin.sources.control.answer(request).await {
        Ok(Reply::Done(sentence)) => Ok(Json(json!({ "done": sentence }))),
        Ok(Reply::Plugins { .. } | Reply::Reloaded(_) | Reply::Refused(_)) => {
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "this host answered something else"))
        }
        Err(problem) => {
            let is_known = admin.sources.control.catalog.all().contains_key(plugin);
            let status = if is_known { StatusCode::CONFLICT } else { StatusCode::NOT_FOUND };
            Err(Refusal::new(status, problem))
        }
    }
}
