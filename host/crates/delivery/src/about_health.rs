//! Recognises the events that report a plugin's health.

use event::Event;

/// Prefix of the `source` of health events.
pub(super) const SOURCE_PREFIX: &str = "/notify-host/";
/// Prefix of the `type` of health events.
pub(super) const TYPE_PREFIX: &str = "notify.plugin.";

/// Returns whether events of this type report a plugin's health.
pub(super) fn tells_of_health(event_type: &str) -> bool {
    event_type.starts_with(TYPE_PREFIX)
}

/// Returns whether the event reports this plugin's own health. The plugin would not be well enough to handle
/// it.
pub(super) fn is_about(event: &Event, plugin: &str) -> bool {
    event.subject.as_deref() == Some(plugin)
        && tells_of_health(&event.event_type)
        && event.source.starts_with(SOURCE_PREFIX)
}
