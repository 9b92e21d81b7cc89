//! Routing finds the plugins that want an event.

use std::sync::Arc;

use broker::topic_matches;

use crate::delivery::herald::is_about;
use crate::delivery::runner::Runner;
use crate::event::Event;
use crate::plugin::Subscription;

/// Those with a subscription that matches, in the order of their names.
pub(super) fn route<'a>(runners: &'a [Arc<Runner>], event: &Event) -> impl Iterator<Item = &'a Arc<Runner>> {
    runners.iter().filter(|runner| wants(&runner.plugin().subscriptions, event) && !is_about(event, &runner.name))
}

/// None at all: every event.
fn wants(subscriptions: &[Subscription], event: &Event) -> bool {
    subscriptions.is_empty() || subscriptions.iter().any(|subscription| matches(subscription, event))
}

fn matches(subscription: &Subscription, event: &Event) -> bool {
    let attribute =
        |pattern: &Option<String>, value: &str| pattern.as_deref().is_none_or(|pattern| topic_matches(pattern, value));
    topic_matches(&subscription.event_type, &event.event_type)
        && attribute(&subscription.source, &event.source)
        && attribute(&subscription.subject, event.subject.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event_type: &str, source: Option<&str>, subject: Option<&str>, expected: bool) {
        let event = Event {
            id: "1".to_owned(),
            has_own_id: true,
            source: "shop".to_owned(),
            event_type: "order.created".to_owned(),
            subject: None,
            time: None,
            data: "{}".to_owned(),
            extensions: Vec::new(),
        };
        let subscription = Subscription {
            event_type: event_type.to_owned(),
            source: source.map(str::to_owned),
            subject: subject.map(str::to_owned),
        };
        assert_eq!(wants(std::slice::from_ref(&subscription), &event), expected, "{subscription:?}");
    }

    #[test]
    fn all_that_a_subscription_gives_must_match() {
        check("order.*", None, None, true);
        check("#", Some("shop"), None, true);
        check("#", Some("bank"), None, false);
        check("payment.*", Some("shop"), None, false);
        // An event without a subject has one of no words.
        check("#", None, Some("#"), true);
        check("#", None, Some("*"), false);
    }
}
