//! A part is one exchange, queue or binding that a host needs in its broker.
//!
//! Which parts there are is a pure function of the source and the plugins. Making them and looking
//! at them is the engines' business; both go by this one list.

use std::time::Duration;

use crate::{ExchangeKind, QueueNames, QueueState, RETRY_TIERS, RetryTier, Source, Warning};

/// One thing that a host needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyItem {
    /// What it is for.
    pub role: Role,
    /// What it is.
    pub object: Object,
}

/// What a part is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The events that come in.
    Source,
    /// What a plugin has still to do.
    Plugin(String),
    /// The way from a wait to the plugin's queue.
    Deliver,
    /// A wait.
    Retry(RetryTier),
    /// What was given up.
    Dead,
}

/// What a part is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// An exchange.
    Exchange {
        /// Its name.
        name: String,
        /// Its kind, if it must be made.
        kind: ExchangeKind,
    },
    /// A queue.
    Queue {
        /// Its name.
        name: String,
        /// When a message leaves it without having been acknowledged.
        gives_up: GivesUp,
    },
    /// A binding.
    Binding {
        /// From this exchange
        exchange: String,
        /// by this key, or pattern on a topic exchange,
        routing_key: String,
        /// to this queue.
        queue: String,
    },
}

/// What becomes of a message that its queue gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivesUp {
    /// There is no other place for it.
    Never,
    /// If the broker itself will not deliver it any more, it goes to this queue.
    To(String),
    /// It goes to this exchange when it has waited for so long.
    After(Duration, String),
}

/// What there is of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The part.
    pub item: TopologyItem,
    /// Whether it is there.
    pub presence: Presence,
    /// Whether all about it could be seen. RabbitMQ says nothing of bindings, and nothing of the properties of
    /// a queue to a user that may not configure it.
    pub seen: bool,
    /// What about it loses messages, or keeps a host from working.
    pub warnings: Vec<Warning>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// Whether a part is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is not.
    Missing,
    /// It is; of a queue, what it holds.
    There(Option<QueueState>),
    /// The broker does not tell: RabbitMQ says nothing of bindings over AMQP.
    Unknown,
}

impl Finding {
    pub(crate) fn new(item: &TopologyItem, presence: Presence) -> Self {
        let seen = presence != Presence::Unknown;
        Self { item: item.clone(), presence, seen, warnings: Vec::new(), notes: Vec::new() }
    }
}

/// That an exchange is of another kind than was meant.
pub(crate) fn kind_note(name: &str, found: &str, meant: ExchangeKind) -> String {
    let meant = meant.as_str();
    format!("exchange {name:?} is of type {found}, not {meant}: it routes as a {found} exchange does")
}

impl Source {
    /// What the source itself needs. The dead letters come first, for what is given up elsewhere
    /// goes there.
    pub fn items(&self) -> Vec<TopologyItem> {
        let item = |object| TopologyItem { role: Role::Source, object };
        let queue = self.names.source().to_owned();
        let mut items = vec![self.names.dead_part()];
        // The exchange without a name always exists, and nothing can be bound to it.
        let named = !self.exchange.is_empty();
        if named {
            items.push(item(Object::Exchange { name: self.exchange.clone(), kind: self.kind }));
        }
        items.push(item(Object::Queue { name: queue.clone(), gives_up: GivesUp::To(self.names.dead()) }));
        for routing_key in self.bindings.iter().filter(|_| named) {
            let (exchange, routing_key) = (self.exchange.clone(), routing_key.clone());
            items.push(item(Object::Binding { exchange, routing_key, queue: queue.clone() }));
        }
        items
    }
}

impl QueueNames {
    /// What these plugins need: each its queue, and together the waits and the way back from them.
    pub fn plugins_items(&self, plugins: &[&str]) -> Vec<TopologyItem> {
        let own = plugins.iter().flat_map(|plugin| self.plugin_parts(plugin));
        self.shared_parts().into_iter().chain(own).collect()
    }

    fn shared_parts(&self) -> Vec<TopologyItem> {
        let deliver = Object::Exchange { name: self.deliver(), kind: ExchangeKind::Direct };
        let mut items = vec![self.dead_part(), TopologyItem { role: Role::Deliver, object: deliver }];
        for tier in RETRY_TIERS {
            let name = self.retry(tier);
            for object in [
                Object::Exchange { name: name.clone(), kind: ExchangeKind::Fanout },
                Object::Queue { name: name.clone(), gives_up: GivesUp::After(tier.delay(), self.deliver()) },
                Object::Binding { exchange: name.clone(), routing_key: String::new(), queue: name },
            ] {
                items.push(TopologyItem { role: Role::Retry(tier), object });
            }
        }
        items
    }

    fn plugin_parts(&self, plugin: &str) -> [TopologyItem; 2] {
        let queue = self.plugin(plugin);
        let binding =
            Object::Binding { exchange: self.deliver(), routing_key: plugin.to_owned(), queue: queue.clone() };
        [Object::Queue { name: queue, gives_up: GivesUp::To(self.dead()) }, binding]
            .map(|object| TopologyItem { role: Role::Plugin(plugin.to_owned()), object })
    }

    fn dead_part(&self) -> TopologyItem {
        TopologyItem { role: Role::Dead, object: Object::Queue { name: self.dead(), gives_up: GivesUp::Never } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(exchange: &str) -> Source {
        Source {
            exchange: exchange.to_owned(),
            kind: ExchangeKind::Topic,
            names: QueueNames::new("n"),
            bindings: vec!["a.*".to_owned(), "b".to_owned()],
        }
    }

    #[test]
    fn a_source_without_an_exchange_of_its_own_has_a_queue_only() {
        let names = |items: Vec<TopologyItem>| -> Vec<String> {
            let name = |item: TopologyItem| match item.object {
                Object::Exchange { name, .. } | Object::Queue { name, .. } => name,
                Object::Binding { exchange, routing_key, queue } => format!("{exchange}-{routing_key}-{queue}"),
            };
            items.into_iter().map(name).collect()
        };
        assert_eq!(names(source("orders").items()), ["n.dead", "orders", "n", "orders-a.*-n", "orders-b-n"]);
        assert_eq!(names(source("").items()), ["n.dead", "n"]);
        assert_eq!(names(source("").names.plugin_parts("p").into()), ["n.plugin.p", "n.deliver-p-n.plugin.p"]);
    }
}
