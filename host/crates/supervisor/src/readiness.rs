//! Readiness. A host is ready if it takes events from its queue and hands them to plugins.
//!
//! Plugins that the operator paused or disabled, or whose files are broken, do not affect readiness: the operator wants
//! them so. A plugin that failed to load because of the machine does, until it has loaded.

use std::path::Path;
use std::sync::Arc;

use broker::BrokerUrl;
use config::HostConfig;
use delivery::{DeliveryState, DeliveryStatus, Runner};
use tokio_util::sync::CancellationToken;

use crate::control::{PluginControl, PluginState};

/// The parts of a running host that decide its readiness.
#[derive(Clone)]
pub struct RunningHost {
    pub config: Arc<HostConfig>,
    pub broker: BrokerUrl,
    pub control: PluginControl,
    pub status: Arc<DeliveryStatus>,
    /// Cancelled when the host is asked to stop.
    pub stop: CancellationToken,
}

impl RunningHost {
    /// Returns why the host is not ready, one sentence per reason; empty if it is.
    pub fn reasons(&self) -> Vec<String> {
        let Self { config, control, .. } = self;
        let not_loaded: Vec<_> = control
            .list()
            .into_iter()
            .filter(|report| report.state == PluginState::NotLoaded)
            .map(|report| (report.name, report.problem.unwrap_or_default()))
            .collect();
        let runners = control.registry.runners();
        let no_queue = |runner: &Arc<Runner>| Some((runner.name.to_string(), runner.no_queue()?));
        let no_queue: Vec<_> = runners.iter().filter_map(no_queue).collect();
        reasons(&Signs {
            is_stopping: self.stop.is_cancelled(),
            plugins: runners.len(),
            not_loaded: &not_loaded,
            no_queue: &no_queue,
            broker: &self.broker,
            queue: config.source.names.source(),
            folder: &config.plugins,
            delivery: &self.status.look(),
        })
    }
}

/// The facts that readiness depends on.
struct Signs<'a> {
    is_stopping: bool,
    /// Number of plugins that run, or will once they can be loaded.
    plugins: usize,
    /// Plugins that the machine could not load, and why.
    not_loaded: &'a [(String, String)],
    /// Plugins for which the broker could not make a queue, and why.
    no_queue: &'a [(String, String)],
    broker: &'a BrokerUrl,
    queue: &'a str,
    folder: &'a Path,
    delivery: &'a DeliveryState,
}

fn reasons(signs: &Signs<'_>) -> Vec<String> {
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
