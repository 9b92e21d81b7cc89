//! Reports changes in a plugin's health: one line in the log, and one event for the other plugins, so that
//! somebody can be notified.

use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Message, Source, Target};
use serde_json::json;
use tracing::{info, warn};
use uuid::Uuid;

use crate::about_health::{SOURCE_PREFIX, TYPE_PREFIX};
use crate::breaker::Change;
use crate::policy::Fault;
use crate::runner::Runner;

/// How long publishing a health event may take. It is not worth a longer wait.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// Publishes the health events of one host.
#[derive(Clone)]
pub(super) struct HealthEvents {
    host: Arc<str>,
}

impl HealthEvents {
    pub(super) fn new() -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = if name.trim().is_empty() { "localhost" } else { name.trim() };
        Self { host: name.into() }
    }

    pub(super) async fn announce(
        &self,
        broker: &Broker,
        source: &Source,
        runner: &Runner,
        change: Change,
        fault: Option<&Fault>,
    ) {
        let plugin = &*runner.name;
        let reason = fault.map_or("", |fault| &fault.reason);
        let what = match change {
            Change::Failing => {
                warn!(
                    plugin,
                    "failing: it is left alone for a while, and its events wait in its queue; last: {reason}"
                );
                "failing"
            }
            Change::Paused => {
                let toml = runner.toml.display();
                warn!(
                    plugin,
                    "paused: it says that it is misconfigured, and its events wait in its queue; \
                    change {toml}, or resume it by `notify-host plugin resume {plugin}`: {reason}"
                );
                "paused"
            }
            Change::Recovered => {
                info!(plugin, "recovered: it gets its events again");
                "recovered"
            }
            Change::Resumed => {
                info!(plugin, "resumed: it gets its events again");
                "recovered"
            }
        };
        let message = self.event(plugin, what, fault);
        // Bypass the source's exchange, where other consumers may listen that do not expect this event.
        let publish = broker.publish(Target::Queue(source.names.source()), &message);
        match tokio::time::timeout(PUBLISH_TIMEOUT, publish).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(plugin, %error, "cannot publish {TYPE_PREFIX}{what}"),
            Err(_) => warn!(plugin, "cannot publish {TYPE_PREFIX}{what}: the broker does not answer"),
        }
    }

    fn event(&self, plugin: &str, what: &str, fault: Option<&Fault>) -> Message {
        let body = json!({
            "specversion": "1.0",
            "id": Uuid::now_v7(),
            "source": format!("{SOURCE_PREFIX}{}", self.host),
            "type": format!("{TYPE_PREFIX}{what}"),
            "subject": plugin,
            "time": jiff::Timestamp::now(),
            "datacontenttype": "application/json",
            "data": {
                "plugin": plugin,
                "host": &*self.host,
                "code": fault.map(|fault| &fault.code),
                "reason": fault.map(|fault| &fault.reason),
            },
        });
        let mut message = Message::json(body.to_string());
        message.properties.content_type = Some("application/cloudevents+json".to_owned());
        message
    }
}

#[cfg(test)]
mod tests {
    use event::{Arrived, Rules, decode};

    use super::*;
    use crate::about_health::is_about;

    #[test]
    fn an_event_about_a_plugin_is_for_all_others() {
        let message = HealthEvents::new().event("email", "failing", Some(&Fault::new("timed-out", "too slow")));
        let arrived = Arrived { message: &message, exchange: "", routing_key: "notifications" };
        let mut event = decode(arrived, &Rules::default()).unwrap();
        assert_eq!(event.event_type, "notify.plugin.failing");
        assert!(event.data.contains("\"reason\":\"too slow\""), "{}", event.data);
        assert!(is_about(&event, "email"));
        assert!(!is_about(&event, "slack"));
        event.attributes_mut().source = "shop".to_owned();
        assert!(!is_about(&event, "email"));
    }
}
