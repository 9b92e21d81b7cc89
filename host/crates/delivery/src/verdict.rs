//! The verdict on one event for one plugin: whether the plugin gets it, and by which rule.

use std::time::Duration;

use broker::topic_matches;
use config::Subscription;
use event::{Answer, Event, Filter, Look};
use sandbox::Plugin;

use crate::about_health::is_about;

/// Whether a plugin gets an event, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'p> {
    Wanted {
        /// `None` if the plugin has no subscription and so gets every event.
        subscription: Option<&'p Subscription>,
        filter: Option<FilterAnswer<'p>>,
    },
    /// None of the plugin's subscriptions matches.
    NotSubscribed,
    Filtered(FilterAnswer<'p>),
    /// The event reports the plugin's own health.
    AboutItself,
}

/// A filter and its answer for the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterAnswer<'p> {
    pub filter: &'p Filter,
    pub answer: Answer,
    /// How long the filter took, if that was too long.
    pub(super) slow: Option<Duration>,
}

impl Verdict<'_> {
    pub fn is_wanted(&self) -> bool {
        matches!(self, Self::Wanted { .. })
    }
}

/// Decides whether a plugin gets an event. Delivery and the commands that explain routing share this decision.
pub fn verdict<'p>(plugin: &'p Plugin, look: &Look<'_>) -> Verdict<'p> {
    if is_about(look.event(), &plugin.name) {
        return Verdict::AboutItself;
    }
    let subscription = first_match(&plugin.subscriptions, look.event());
    if subscription.is_none() && !plugin.subscriptions.is_empty() {
        return Verdict::NotSubscribed;
    }
    let filter = plugin.filter.as_ref().map(|filter| {
        let (answer, slow) = filter.ask(look);
        FilterAnswer { filter, answer, slow }
    });
    match filter {
        Some(asked) if !asked.answer.matches() => Verdict::Filtered(asked),
        filter => Verdict::Wanted { subscription, filter },
    }
}

/// The rule that decides whether a plugin gets an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule<Text = Box<str>> {
    /// The plugin gets every event.
    Everything,
    /// This subscription matches, and so does the filter if there is one.
    Subscription(Text),
    /// The filter does not match, for this reason.
    Filtered(Text),
    /// The event reports the plugin's own health.
    AboutItself,
    /// The plugin has not been loaded, so its rules are unknown. The event waits in the plugin's queue.
    NotYetRouted,
}

impl<Text> Rule<Text> {
    /// Returns whether the plugin gets the event, or might.
    pub fn is_wanted(&self) -> bool {
        matches!(self, Self::Everything | Self::Subscription(_) | Self::NotYetRouted)
    }
}

fn first_match<'p>(subscriptions: &'p [Subscription], event: &Event) -> Option<&'p Subscription> {
    subscriptions.iter().find(|subscription| matches(subscription, event))
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
    use contract::types;

    use super::*;

    fn check(event_type: &str, source: Option<&str>, subject: Option<&str>, expected: bool) {
        let subscription = Subscription {
            event_type: event_type.to_owned(),
            source: source.map(str::to_owned),
            subject: subject.map(str::to_owned),
        };
        let subscriptions = std::slice::from_ref(&subscription);
        let attributes = types::Event {
            id: "1".to_owned(),
            source: "shop".to_owned(),
            event_type: "order.created".to_owned(),
            subject: None,
            time: None,
            data: "{}".to_owned(),
            extensions: Vec::new(),
        };
        assert_eq!(
            first_match(subscriptions, &Event::new(attributes, true)),
            expected.then_some(&subscription),
            "{subscription:?}"
        );
    }

    #[test]
    fn all_that_a_subscription_gives_must_match() {
        check("order.*", None, None, true);
        check("#", Some("shop"), None, true);
        check("#", Some("bank"), None, false);
        check("payment.*", Some("shop"), None, false);
        // An event without a subject matches like one with an empty subject, which has no words.
        check("#", None, Some("#"), true);
        check("#", None, Some("*"), false);
    }
}
