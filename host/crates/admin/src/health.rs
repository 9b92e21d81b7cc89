//! Health and readiness. A host is ready if it takes events from its queue and hands them to plugins.
//!
//! Plugins that the operator paused or disabled, or whose files are broken, do not affect readiness: the operator wants
//! them so. A plugin that failed to load because of the machine does, until it has loaded.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use broker::BrokerUrl;
use delivery::DeliveryState;
use http::StatusCode;
use serde_json::json;

use crate::Admin;

/// The facts that readiness depends on.
pub(super) struct Signs<'a> {
    pub(super) is_stopping: bool,
    /// Number of plugins that run, or will once they can be loaded.
    pub(super) plugins: usize,
    /// Plugins that the machine could not load, and why.
    pub(super) not_loaded: &'a [(String, String)],
    /// Plugins for which the broker could not make a queue, and why.
    pub(super) no_queue: &'a [(String, String)],
    pub(super) broker: &'a BrokerUrl,
    pub(super) queue: &'a str,
    pub(super) folder: &'a Path,
    pub(super) delivery: &'a DeliveryState,
}

/// Returns why the host is not ready, one sentence per reason; empty if it is.
pub(super) fn reasons(signs: &Signs<'_>) -> Vec<String> {
    let Signs { is_stopping, plugins, not_loaded, no_queue, broker, queue, folder, delivery } = signs;
    let mut reasons = Vec::new();
    if *is_stopping {
        reasons.push("the host is stopping: it finishes what it has begun, and takes nothing new".to_owned());
    }
    if *plugins == 0 {
        reasons
            .push(format!("no plugin of {} runs: put one there that loads and is not switched off", folder.display()));
    }
    for (plugin, problem) in *not_loaded {
        let problem = problem.replace('\n', "; ");
        reasons.push(format!(
            "plugin {plugin:?} could not be loaded, is tried again, and its events wait in its queue: {problem}"
        ));
    }
    if delivery.connected.is_none() {
        reasons.push(match &delivery.away {
            Some(why) => format!("there is no session with the broker {broker}: {why}"),
            None => format!("there is no session with the broker {broker} yet"),
        });
    } else if !delivery.is_consuming && *plugins > 0 && !is_stopping {
        reasons.push(format!(
            "nothing is taken from queue {queue:?}: no plugin has a queue of its own yet, or the host is just beginning"
        ));
    }
    if delivery.connected.is_some() {
        reasons.extend(no_queue.iter().map(|(plugin, problem)| {
            format!("events pass plugin {plugin:?} by, for its queue cannot be made: {problem}")
        }));
    }
    if delivery.is_stalled {
        let count = delivery.unacknowledged;
        reasons.push(format!("stalled: {count} messages are unsettled, and none is being settled; is the broker blocking publishers, or a queue full?"));
    }
    reasons
}

/// Answers the liveness probe. Any answer means that the runtime works.
pub(super) async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

pub(super) async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let reasons = admin.reasons();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_host_is_ready_when_it_takes_events_and_has_somebody_to_hand_them_to() {
        let broker: BrokerUrl = "amqp://guest:hunter2@127.0.0.1".parse().unwrap();
        let well = DeliveryState {
            connected: Some((broker.clone(), Timestamp::UNIX_EPOCH)),
            is_consuming: true,
            ..DeliveryState::default()
        };
        let judge = |is_stopping, plugins, not_loaded: &[_], delivery: &DeliveryState, expected: &[&str]| {
            let (queue, folder) = ("q", Path::new("p"));
            let no_queue = [("slack".to_owned(), "not allowed".to_owned())];
            let no_queue = if plugins == 3 { &no_queue[..] } else { &[] };
            let broker = &broker;
            let told = reasons(&Signs { is_stopping, plugins, not_loaded, no_queue, broker, queue, folder, delivery });
            assert_eq!(told.len(), expected.len(), "{told:?}");
            for (told, expected) in told.iter().zip(expected) {
                assert!(told.contains(expected) && !told.contains("hunter2"), "{told}");
            }
        };
        let check = |is_stopping, plugins, delivery: &DeliveryState, expected: &[&str]| {
            judge(is_stopping, plugins, &[], delivery, expected);
        };
        check(false, 1, &well, &[]);
        check(false, 3, &well, &["events pass plugin \"slack\" by, for its queue cannot be made: not allowed"]);
        let not_loaded = ("email".to_owned(), "no memory".to_owned());
        judge(false, 2, &[not_loaded], &well, &["plugin \"email\" could not be loaded, is tried again"]);
        check(true, 1, &well, &["is stopping"]);
        check(false, 0, &DeliveryState { is_consuming: false, ..well.clone() }, &["no plugin of p runs"]);
        check(false, 1, &DeliveryState { is_consuming: false, ..well.clone() }, &["nothing is taken from queue \"q\""]);
        check(
            false,
            1,
            &DeliveryState { is_stalled: true, unacknowledged: 7, ..well.clone() },
            &["stalled: 7 messages"],
        );
        check(false, 0, &DeliveryState::default(), &["no plugin", "127.0.0.1 yet"]);
        let away = DeliveryState { away: Some("connection refused".to_owned()), ..DeliveryState::default() };
        check(false, 1, &away, &["there is no session with the broker amqp://"]);
        check(true, 1, &away, &["is stopping", "connection refused"]);
    }
}
