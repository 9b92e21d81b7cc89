//! Routing decides which plugins get an event, and by which rule.
//!
//! The subscriptions of a plugin that has not been loaded are unknown. Every event goes to its queue, marked in its trail as
//! not yet routed, and is routed when it is taken from there.

use std::sync::Arc;
use std::time::Duration;

use broker::topic_matches;
use config::Subscription;
use event::{Answer, Event, Filter, Look, Matter};
use sandbox::Plugin;
use tracing::{debug, warn};

use crate::health_events::{is_about, tells_of_health};
use crate::registry::Runners;
use crate::route_cache::RouteCache;
use crate::route_reason::because;
use crate::runner::{self, Runner, Version};

/// Whether a plugin gets an event, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'p> {
    Wanted {
        /// `None`: it has none, and gets every event.
        subscription: Option<&'p Subscription>,
        filter: Option<Asked<'p>>,
    },
    /// None of its subscriptions matches.
    NotSubscribed,
    Filtered(Asked<'p>),
    /// It tells of the plugin's own health.
    AboutItself,
}

/// A filter, and what it says of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked<'p> {
    pub filter: &'p Filter,
    pub answer: Answer,
    /// If it took longer than it should.
    slow: Option<Duration>,
}

impl Verdict<'_> {
    pub fn is_wanted(&self) -> bool {
        matches!(self, Self::Wanted { .. })
    }
}

/// The one decision, for delivery and for who asks what it would be.
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
        Asked { filter, answer, slow }
    });
    match filter {
        Some(asked) if !asked.answer.matches() => Verdict::Filtered(asked),
        filter => Verdict::Wanted { subscription, filter },
    }
}

/// Who gets an event, and why.
#[derive(Default)]
pub struct Routing {
    /// All that are subscribed to it, in the order of their names.
    pub subscribed: Vec<Subscribed>,
    pub not_subscribed: u32,
}

/// One that is subscribed to an event, and the rule by which it gets it, or does not.
pub struct Subscribed {
    pub runner: Arc<Runner>,
    pub rule: Rule<Arc<str>>,
}

/// The rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule<Text = Box<str>> {
    /// It gets every event.
    Everything,
    /// This subscription of its matches, and its filter, if it has one.
    Subscription(Text),
    /// Its filter does not match; why, in words.
    Filtered(Text),
    /// It tells of the plugin itself.
    AboutItself,
    /// The plugin has not been loaded, so that nobody knows yet: it waits in the plugin's queue.
    NotYetRouted,
}

impl<Text> Rule<Text> {
    /// Whether the plugin gets the event, or may.
    pub fn is_wanted(&self) -> bool {
        matches!(self, Self::Everything | Self::Subscription(_) | Self::NotYetRouted)
    }
}

impl Routing {
    /// Plugins that get it, or may want it once they can be asked.
    pub(super) fn wanting(&self) -> impl Iterator<Item = &Subscribed> {
        self.subscribed.iter().filter(|subscribed| subscribed.rule.is_wanted())
    }
}

pub(super) fn route(members: &Runners, candidates: &RouteCache<Arc<Runner>>, event: &Event) -> Routing {
    let look = Look::new(event);
    let mut routing = Routing::default();
    let candidates = if tells_of_health(&event.event_type) {
        // It concerns the plugin that it is about, in its way, whatever that subscribes to.
        Arc::clone(members)
    } else {
        let may_want = |runner: &Arc<Runner>| {
            runner.plugin().is_none_or(|plugin| may_want(&plugin.subscriptions, &event.event_type))
        };
        candidates.of(members, runner::replacements(), &event.event_type, may_want)
    };
    routing.not_subscribed += u32::try_from(members.len() - candidates.len()).unwrap_or(u32::MAX);
    for runner in candidates.iter() {
        let rule = match runner.current() {
            Some(version) => version.rule(&look).ok(),
            // No plugin gets the news of its own health.
            None if is_about(event, &runner.name) => Some(Rule::AboutItself),
            None => Some(Rule::NotYetRouted),
        };
        match rule {
            Some(rule) => routing.subscribed.push(Subscribed { runner: Arc::clone(runner), rule }),
            None => routing.not_subscribed += 1,
        }
    }
    routing
}

impl Version {
    /// The rule by which it gets the event, or does not. The error says why it is not even subscribed to it.
    fn rule(&self, look: &Look<'_>) -> Result<Rule<Arc<str>>, Arc<str>> {
        let Self { plugin, rules, .. } = self;
        let verdict = verdict(plugin, look);
        if let Verdict::Filtered(asked) | Verdict::Wanted { filter: Some(asked), .. } = &verdict {
            tell(&plugin.name, look.event(), asked);
        }
        rules.rule(plugin, &verdict).ok_or_else(|| because(plugin, &verdict).into())
    }

    /// Why it does not want an event that came before it could be asked; `None` if it does.
    pub(super) fn declines(&self, event: &Event) -> Option<Arc<str>> {
        match self.rule(&Look::new(event)) {
            Ok(Rule::Everything | Rule::Subscription(_) | Rule::NotYetRouted) => None,
            Ok(Rule::Filtered(why)) | Err(why) => Some(why),
            Ok(Rule::AboutItself) => Some("the event tells of its own health".into()),
        }
    }
}

fn tell(plugin: &str, event: &Event, asked: &Asked<'_>) {
    let event_id = &event.id;
    match &asked.answer {
        Answer::Yes => {}
        Answer::No => debug!(plugin, event_id, "its filter does not match"),
        Answer::Lacks(what) => debug!(plugin, event_id, "its filter does not match: {what}"),
        Answer::Unfit(problem) if asked.filter.is_first(Matter::Unfit) => warn!(
            plugin,
            event_id,
            "its filter does not fit this event, which counts as no match; from now on this is only said in the debug \
             log: {problem}"
        ),
        Answer::Unfit(problem) => debug!(plugin, event_id, "its filter does not fit this event: {problem}"),
        Answer::NotAsked(problem) if asked.filter.is_first(Matter::NotAsked) => warn!(
            plugin,
            event_id,
            "its filter could not be asked, and it gets the event; from now on this is only said in the debug log: \
             {problem}"
        ),
        Answer::NotAsked(problem) => debug!(plugin, event_id, "its filter could not be asked: {problem}"),
    }
    if let Some(took) = asked.slow {
        let milliseconds = took.as_millis();
        if asked.filter.is_first(Matter::Slow) {
            warn!(plugin, event_id, milliseconds, "its filter is slow, and holds up all events");
        }
    }
}

fn first_match<'p>(subscriptions: &'p [Subscription], event: &Event) -> Option<&'p Subscription> {
    subscriptions.iter().find(|subscription| matches(subscription, event))
}

/// Whether it may want events of this type, whatever else it asks of them.
fn may_want(subscriptions: &[Subscription], event_type: &str) -> bool {
    subscriptions.is_empty()
        || subscriptions.iter().any(|subscription| topic_matches(&subscription.event_type, event_type))
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
        // An event without a subject has one of no words.
        check("#", None, Some("#"), true);
        check("#", None, Some("*"), false);
    }
}
