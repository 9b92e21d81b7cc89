//! Routing decides which plugins get an event, and by which rule.
//!
//! The subscriptions of a plugin that has not been loaded are unknown. Every event goes to its queue, marked in
//! its delivery headers as not yet routed. It is routed when it is taken from there.

use std::sync::Arc;

use broker::topic_matches;
use config::Subscription;
use event::{Answer, Event, Look, Matter};
use tracing::{debug, warn};

use crate::about_health::{is_about, tells_of_health};
use crate::registry::Runners;
use crate::route_cache::RouteCache;
use crate::route_reason::because;
use crate::runner::{self, Runner, Version};
use crate::verdict::{FilterAnswer, Rule, Verdict, verdict};

/// The plugins that get an event, and why.
#[derive(Default)]
pub struct Routing {
    /// All plugins that are subscribed to the event, sorted by name.
    pub subscribed: Vec<Subscribed>,
    pub not_subscribed: u32,
}

/// A plugin that is subscribed to an event, and the rule that decides whether it gets it.
pub struct Subscribed {
    pub runner: Arc<Runner>,
    pub rule: Rule<Arc<str>>,
}

impl Routing {
    /// Returns the plugins that get the event, or might once they have loaded.
    pub(super) fn wanting(&self) -> impl Iterator<Item = &Subscribed> {
        self.subscribed.iter().filter(|subscribed| subscribed.rule.is_wanted())
    }
}

pub(super) fn route(members: &Runners, candidates: &RouteCache<Arc<Runner>>, event: &Event) -> Routing {
    let look = Look::new(event);
    let mut routing = Routing::default();
    let candidates = if tells_of_health(&event.event_type) {
        // Any plugin may be the one that the event is about, whatever it subscribes to.
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
            // No plugin gets news of its own health.
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
    /// Returns the rule that decides whether the plugin gets the event. The error says why it is not even
    /// subscribed.
    fn rule(&self, look: &Look<'_>) -> Result<Rule<Arc<str>>, Arc<str>> {
        let Self { plugin, reasons, .. } = self;
        let verdict = verdict(plugin, look);
        if let Verdict::Filtered(asked) | Verdict::Wanted { filter: Some(asked), .. } = &verdict {
            tell(&plugin.name, look.event(), asked);
        }
        reasons.rule(plugin, &verdict).ok_or_else(|| because(plugin, &verdict).into())
    }

    /// Returns why the plugin does not want an event that was queued unrouted, or `None` if it does.
    pub(super) fn declines(&self, event: &Event) -> Option<Arc<str>> {
        match self.rule(&Look::new(event)) {
            Ok(Rule::Everything | Rule::Subscription(_) | Rule::NotYetRouted) => None,
            Ok(Rule::Filtered(why)) | Err(why) => Some(why),
            Ok(Rule::AboutItself) => Some("the event tells of its own health".into()),
        }
    }
}

fn tell(plugin: &str, event: &Event, asked: &FilterAnswer<'_>) {
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

/// Returns whether the plugin may want events of this type, ignoring all other criteria.
fn may_want(subscriptions: &[Subscription], event_type: &str) -> bool {
    subscriptions.is_empty()
        || subscriptions.iter().any(|subscription| topic_matches(&subscription.event_type, event_type))
}
