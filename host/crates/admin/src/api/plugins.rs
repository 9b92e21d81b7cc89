//! `/plugins`: shows the plugins and operates them, as `notify-host plugin` does.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use config::{Capability, Grants};
use event::clock::now;
use http::StatusCode;
use serde_json::{Value, json};
use supervisor::control::PluginReport;
use telemetry::metrics::{Ended, GivenUp, SpillReason};

use crate::Admin;
use crate::depths::{self, Depths};
use crate::refusal::Refusal;

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let depths = depths::last(&admin.depths);
    let plugins: Vec<_> =
        admin.sources.host.control.list().into_iter().map(|report| show(&admin, &depths, &report)).collect();
    Json(json!({ "process": std::process::id(), "plugins": plugins }))
}

fn show(admin: &Admin, depths: &Depths, report: &PluginReport) -> Value {
    let mut plugin = json!(report);
    let runner = admin.sources.host.control.registry.get(&report.name);
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

pub(super) async fn pause(State(admin): State<Arc<Admin>>, Path(plugin): Path<String>) -> Result<Json<Value>, Refusal> {
    told(&admin, &plugin, admin.sources.host.control.pause(&plugin))
}

pub(super) async fn resume(
    State(admin): State<Arc<Admin>>,
    Path(plugin): Path<String>,
) -> Result<Json<Value>, Refusal> {
    told(&admin, &plugin, admin.sources.host.control.resume(&plugin))
}

pub(super) async fn reload(
    State(admin): State<Arc<Admin>>,
    Path(plugin): Path<String>,
) -> Result<Json<Value>, Refusal> {
    told(&admin, &plugin, admin.sources.host.control.reload(&plugin).await)
}

fn told(admin: &Admin, plugin: &str, done: Result<String, String>) -> Result<Json<Value>, Refusal> {
    match done {
        Ok(sentence) => Ok(Json(json!({ "done": sentence }))),
        Err(problem) => {
            let is_known = admin.sources.host.control.catalog.all().contains_key(plugin);
            let status = if is_known { StatusCode::CONFLICT } else { StatusCode::NOT_FOUND };
            Err(Refusal::new(status, problem))
        }
    }
}
