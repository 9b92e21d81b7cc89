//! A topology item is one exchange, queue or binding that a host needs in its broker.
//!
//! The list of items is a pure function of the source and the plugins. The engines declare and
//! inspect them, all from this one list.

use std::time::Duration;

use crate::{ExchangeKind, QueueNames, QueueState, RETRY_TIERS, RetryTier, Source, Warning};

/// One exchange, queue or binding that a host needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyItem {
    /// Purpose of the item.
    pub role: Role,
    /// The object itself.
    pub object: Object,
}

/// Purpose of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Incoming events.
    Source,
    /// A plugin's backlog.
    Plugin(String),
    /// The exchange that routes messages from a retry tier to the plugin's queue.
    Deliver,
    /// The wait between two attempts.
    Retry(RetryTier),
    /// Dead letters.
    Dead,
}

/// An object in the broker, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// An exchange.
    Exchange {
        /// Name of the exchange.
        name: String,
        /// Type to declare it with if it is missing.
        kind: ExchangeKind,
    },
    /// A queue.
    Queue {
        /// Name of the queue.
        name: String,
        /// When a message leaves the queue without having been acknowledged.
        gives_up: GivesUp,
    },
    /// A binding.
    Binding {
        /// Exchange to bind from.
        exchange: String,
        /// Routing key, or a pattern on a topic exchange.
        routing_key: String,
        /// Queue to bind.
        queue: String,
    },
}

/// When a queue gives up a message, and where the message then goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivesUp {
    /// Never: there is no other place for it.
    Never,
    /// To this queue, once the broker itself no longer delivers it.
    To(String),
    /// To this exchange, after it has waited for this long.
    After(Duration, String),
}

/// The result of inspecting one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The inspected item.
    pub item: TopologyItem,
    /// Whether it exists.
    pub presence: Presence,
    /// Whether all of its settings are visible. RabbitMQ exposes no bindings over AMQP, and no
    /// queue properties to a user without configure permission.
    pub seen: bool,
    /// Settings that lose messages, or keep a host from working.
    pub warnings: Vec<Warning>,
    /// Other facts worth knowing.
    pub notes: Vec<String>,
}

/// Whether an item exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does not exist.
    Missing,
    /// It exists; a queue comes with its counts.
    There(Option<QueueState>),
    /// The broker does not say: AMQP does not expose bindings.
    Unknown,
}

impl Finding {
    pub(crate) fn new(item: &TopologyItem, presence: Presence) -> Self {
        let seen = presence != Presence::Unknown;
        Self { item: item.clone(), presence, seen, warnings: Vec::new(), notes: Vec::new() }
    }
}

/// Describes an exchange whose type differs from the intended one.
pub(crate) fn kind_note(name: &str, found: &str, meant: ExchangeKind) -> String {
    let meant = meant.as_str();
    format!("exchange {name:?} is of type {found}, not {meant}: it routes as a {found} exchange does")
}

impl Source {
    /// Returns the items that the source itself needs. The dead-letter queue comes first, because
    /// the others dead-letter to it.
    pub fn items(&self) -> Vec<TopologyItem> {
        let item = |object| TopologyItem { role: Role::Source, object };
        let queue = self.names.source().to_owned();
        let mut items = vec![self.names.dead_item()];
        // The default exchange always exists, and nothing can be bound to it.
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
    /// Returns the items that these plugins need: a queue for each, and the shared retry tiers with
    /// the exchange that leads back from them.
    pub fn plugins_items(&self, plugins: &[&str]) -> Vec<TopologyItem> {
        let own = plugins.iter().flat_map(|plugin| self.plugin_items(plugin));
        self.shared_items().into_iter().chain(own).collect()
    }

    fn shared_items(&self) -> Vec<TopologyItem> {
        let deliver = Object::Exchange { name: self.deliver(), kind: ExchangeKind::Direct };
        let mut items = vec![self.dead_item(), TopologyItem { role: Role::Deliver, object: deliver }];
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

    fn plugin_items(&self, plugin: &str) -> [TopologyItem; 2] {
        let queue = self.plugin(plugin);
        let binding =
            Object::Binding { exchange: self.deliver(), routing_key: plugin.to_owned(), queue: queue.clone() };
        [Object::Queue { name: queue, gives_up: GivesUp::To(self.dead()) }, binding]
            .map(|object| TopologyItem { role: Role::Plugin(plugin.to_owned()), object })
    }

    fn dead_item(&self) -> TopologyItem {
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
        assert_eq!(names(source("").names.plugin_items("p").into()), ["n.plugin.p", "n.deliver-p-n.plugin.p"]);
    }
}
