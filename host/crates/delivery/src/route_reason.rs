//! Explains in words why a plugin gets an event or does not.

use std::sync::Arc;

use config::Subscription;
use event::{Answer, Filter};
use sandbox::{Chooser, Plugin};

use crate::verdict::{Rule, Verdict};

/// The common reasons of one plugin version, formatted once.
#[derive(Debug)]
pub(super) struct RouteReasons {
    /// One reason for each subscription, in their order, for an event that passes the filter.
    subscribed: Vec<Arc<str>>,
    /// The reason without a subscription, when a filter lets the event through.
    everything: Option<Arc<str>>,
    /// The reason when the filter does not match.
    filtered: Option<Arc<str>>,
}

impl RouteReasons {
    pub(super) fn of(plugin: &Plugin) -> Self {
        let filter = plugin.filter.as_ref();
        let wanted = |subscription| wanted(plugin, subscription, filter.map(|filter| (filter, &Answer::Yes))).into();
        Self {
            subscribed: plugin.subscriptions.iter().map(|subscription| wanted(Some(subscription))).collect(),
            everything: filter.map(|_| wanted(None)),
            filtered: filter.map(|filter| said(filter, &Answer::No).into()),
        }
    }

    /// Returns the rule behind a verdict, or `None` if the plugin is not subscribed to the event. `plugin` must
    /// be the version that these reasons were made for.
    pub(super) fn rule(&self, plugin: &Plugin, verdict: &Verdict<'_>) -> Option<Rule<Arc<str>>> {
        let made = match verdict {
            Verdict::NotSubscribed => return None,
            Verdict::AboutItself => return Some(Rule::AboutItself),
            Verdict::Wanted { subscription: None, filter: None } => return Some(Rule::Everything),
            Verdict::Wanted { filter: Some(asked), .. } if asked.answer != Answer::Yes => None,
            Verdict::Wanted { subscription: None, .. } => self.everything.as_ref(),
            Verdict::Wanted { subscription: Some(subscription), .. } => {
                let place = plugin.subscriptions.iter().position(|one| std::ptr::eq(one, *subscription));
                place.and_then(|place| self.subscribed.get(place))
            }
            Verdict::Filtered(asked) if asked.answer == Answer::No => self.filtered.as_ref(),
            Verdict::Filtered(_) => None,
        };
        let rule = made.map_or_else(|| because(plugin, verdict).into(), Arc::clone);
        Some(if verdict.is_wanted() { Rule::Subscription(rule) } else { Rule::Filtered(rule) })
    }
}

/// Returns the full reason for a verdict.
pub fn because(plugin: &Plugin, verdict: &Verdict<'_>) -> String {
    match verdict {
        Verdict::Wanted { subscription, filter } => {
            wanted(plugin, *subscription, filter.as_ref().map(|asked| (asked.filter, &asked.answer)))
        }
        Verdict::NotSubscribed => {
            let all: Vec<_> = plugin.subscriptions.iter().map(patterns).collect();
            let who = match plugin.subscribed_by {
                Chooser::Operator => "its toml subscribes it",
                Chooser::Plugin => "it subscribes",
            };
            format!("{who} to other events: {}", all.join(", "))
        }
        Verdict::Filtered(asked) => said(asked.filter, &asked.answer),
        Verdict::AboutItself => "the event tells of its own health".to_owned(),
    }
}

fn wanted(plugin: &Plugin, subscription: Option<&Subscription>, filter: Option<(&Filter, &Answer)>) -> String {
    let whose = match plugin.subscribed_by {
        Chooser::Operator => "of its toml",
        Chooser::Plugin => "of the plugin itself",
    };
    let subscribed = match subscription {
        Some(subscription) => format!("subscription {} {whose}", patterns(subscription)),
        None => "it has no subscription, and gets every event".to_owned(),
    };
    match filter {
        Some((filter, answer)) => format!("{subscribed}; {}", said(filter, answer)),
        None => subscribed,
    }
}

fn patterns(subscription: &Subscription) -> String {
    let Subscription { event_type, source, subject } = subscription;
    let more = [("source", source), ("subject", subject)];
    let more = more.into_iter().filter_map(|(name, pattern)| Some(format!(" with {name} {:?}", pattern.as_ref()?)));
    format!("{event_type:?}{}", more.collect::<String>())
}

fn said(filter: &Filter, answer: &Answer) -> String {
    let text = filter.text();
    match answer {
        Answer::Yes => format!("filter {text} matches"),
        Answer::No => format!("filter {text} does not match"),
        Answer::Lacks(what) => format!("filter {text} does not match: {what}"),
        Answer::Unfit(problem) => format!("filter {text} does not fit the event, and so does not match: {problem}"),
        Answer::NotAsked(problem) => format!("filter {text} cannot be asked, and so lets it through: {problem}"),
    }
}
