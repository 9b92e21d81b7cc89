//! The rule by which a plugin gets an event or does not, in words.

use crate::delivery::route::{Asked, Verdict};
use crate::event::Answer;
use crate::plugin::{Chooser, Plugin, Subscription};

/// The whole reason.
pub(crate) fn because(plugin: &Plugin, verdict: &Verdict<'_>) -> String {
    let whose = match plugin.subscribed_by {
        Chooser::Operator => "of its toml",
        Chooser::Plugin => "of the plugin itself",
    };
    match verdict {
        Verdict::Wanted { subscription, filter } => {
            let subscribed = match subscription {
                Some(subscription) => format!("subscription {} {whose}", patterns(subscription)),
                None => "it has no subscription, and gets every event".to_owned(),
            };
            match filter {
                Some(asked) => format!("{subscribed}; {}", said(asked)),
                None => subscribed,
            }
        }
        Verdict::NotSubscribed => {
            let all: Vec<_> = plugin.subscriptions.iter().map(patterns).collect();
            let who = match plugin.subscribed_by {
                Chooser::Operator => "its toml subscribes it",
                Chooser::Plugin => "it subscribes",
            };
            format!("{who} to other events: {}", all.join(", "))
        }
        Verdict::Filtered(asked) => said(asked),
        Verdict::AboutItself => "the event tells of its own health".to_owned(),
    }
}

fn patterns(subscription: &Subscription) -> String {
    let Subscription { event_type, source, subject } = subscription;
    let more = [("source", source), ("subject", subject)];
    let more = more.into_iter().filter_map(|(name, pattern)| Some(format!(" with {name} {:?}", pattern.as_ref()?)));
    format!("{event_type:?}{}", more.collect::<String>())
}

fn said(asked: &Asked<'_>) -> String {
    let text = asked.filter.text();
    match &asked.answer {
        Answer::Yes => format!("filter {text} matches"),
        Answer::No => format!("filter {text} does not match"),
        Answer::Lacks(what) => format!("filter {text} does not match: {what}"),
        Answer::Unfit(problem) => format!("filter {text} does not fit the event, and so does not match: {problem}"),
        Answer::NotAsked(problem) => format!("filter {text} cannot be asked, and so lets it through: {problem}"),
    }
}
