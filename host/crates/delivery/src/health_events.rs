//! The herald tells of a plugin's health: one line in the log, and one event for the other plugins,
//! so that someone can be told.

use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Message, Source, Target};
use event::Event;
use serde_json::json;
use tracing::{info, warn};
use uuid::Uuid;

use crate::breaker::Change;
use crate::policy::Fault;
use crate::runner::Runner;

/// How long an event about a plugin may take to be published; it is not worth more.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// What the `source` of such an event begins with.
const SOURCE_PREFIX: &str = "/notify-host/";
const TYPE_PREFIX: &str = "notify.plugin.";

/// Speaks for one host.
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
        // Not through the source's exchange: others may listen there who do not expect this.
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

/// Whether events of this type tell of a plugin's health.
pub(super) fn tells_of_health(event_type: &str) -> bool {
    event_type.starts_with(TYPE_PREFIX)
}

/// Whether the event tells of this plugin's own health: it would not be well enough to hear it.
pub(super) fn is_about(event: &Event, plugin: &str) -> bool {
    event.subject.as_deref() == Some(plugin)
        && tells_of_health(&event.event_type)
        && event.source.starts_with(SOURCE_PREFIX)
}

#[cfg(test)]
mod tests {
    use event::{Arrived, Rules, decode};

    use super::*;

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
