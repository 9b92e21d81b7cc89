//! The exchanges and queues of one event source, and their names.
//!
//! | object | for |
//! |---|---|
//! | `QUEUE` | the source's queue, bound to the source's exchange |
//! | `QUEUE.plugin.NAME` | a plugin's own backlog: spilled deliveries and retries that are due |
//! | `QUEUE.deliver` | direct exchange that routes to the plugin queues by plugin name |
//! | `QUEUE.retry.5s` … `.1h` | the wait between attempts |
//! | `QUEUE.dead` | dead letters |

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// The source of events, as the operator configured it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Exchange that publishers publish to.
    pub exchange: String,
    /// Type to declare the exchange with if it is missing.
    pub kind: ExchangeKind,
    /// Name of the queue, and the prefix of all other names.
    pub names: QueueNames,
    /// Routing keys, or patterns on a topic exchange. Always bound: binding again changes nothing.
    pub bindings: Vec<String>,
}

/// How an exchange selects queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeKind {
    /// By a pattern on the routing key.
    #[default]
    Topic,
    /// By the exact routing key.
    Direct,
    /// All bound queues.
    Fanout,
}

impl ExchangeKind {
    /// Returns the type as AMQP spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Direct => "direct",
            Self::Fanout => "fanout",
        }
    }
}

impl FromStr for ExchangeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "topic" => Ok(Self::Topic),
            "direct" => Ok(Self::Direct),
            "fanout" => Ok(Self::Fanout),
            other => Err(format!("unknown exchange type {other:?}; expected topic, direct or fanout")),
        }
    }
}

/// The names of one source's queues and internal exchanges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueNames {
    source: String,
}

impl QueueNames {
    /// Creates the names; `source` is the name of the source's queue.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into() }
    }

    /// Returns the name of the source's queue.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns the name of a plugin's own queue.
    pub fn plugin(&self, plugin: &str) -> String {
        format!("{}.plugin.{plugin}", self.source)
    }

    /// Returns the name of the exchange that routes to the plugins' own queues by plugin name.
    pub fn deliver(&self) -> String {
        format!("{}.deliver", self.source)
    }

    /// Returns the name shared by the exchange and the queue of one retry tier.
    pub fn retry(&self, tier: RetryTier) -> String {
        format!("{}.retry.{tier}", self.source)
    }

    /// Returns the name of the dead-letter queue.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.source)
    }
}

/// One of the delays for which RabbitMQ has a queue. With a TTL per message, a message would wait
/// behind the head of its queue (<https://www.rabbitmq.com/docs/ttl#per-message-ttl-caveats>); with
/// a TTL per queue it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetryTier {
    seconds: u32,
}

/// All tiers, shortest first.
pub const RETRY_TIERS: [RetryTier; 10] = {
    let seconds = [1, 2, 5, 15, 30, 60, 300, 600, 1800, 3600];
    let mut tiers = [RetryTier { seconds: 0 }; 10];
    let mut at = 0;
    while at < tiers.len() {
        tiers[at].seconds = seconds[at];
        at += 1;
    }
    tiers
};

impl RetryTier {
    /// Returns the shortest tier that is not shorter than the delay, or the longest tier if all are.
    pub fn for_delay(delay: Duration) -> Self {
        RETRY_TIERS.into_iter().find(|tier| tier.delay() >= delay).unwrap_or(RETRY_TIERS[RETRY_TIERS.len() - 1])
    }

    /// Returns how long a message stays in this tier.
    pub fn delay(self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }
}

impl fmt::Display for RetryTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds {
            seconds if seconds % 3600 == 0 => write!(f, "{}h", seconds / 3600),
            seconds if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
            seconds => write!(f, "{seconds}s"),
        }
    }
}

/// A setting of an existing exchange or queue that can lose messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_goes_to_the_nearest_tier_that_is_not_shorter() {
        for (millis, tier) in [
            (0, "1s"),
            (1_000, "1s"),
            (1_001, "2s"),
            (4_000, "5s"),
            (299_000, "5m"),
            (3_600_000, "1h"),
            (9_999_999, "1h"),
        ] {
            assert_eq!(RetryTier::for_delay(Duration::from_millis(millis)).to_string(), tier, "{millis} ms");
        }
    }

    #[test]
    fn names_grow_from_the_source_queue() {
        let names = QueueNames::new("notifications");
        assert_eq!(names.plugin("email"), "notifications.plugin.email");
        assert_eq!(names.deliver(), "notifications.deliver");
        assert_eq!(names.dead(), "notifications.dead");
        assert_eq!(names.retry(RETRY_TIERS[2]), "notifications.retry.5s");
    }
}
