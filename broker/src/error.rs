//! Broker errors, grouped by how the caller can react.

/// A malformed broker URL.
#[derive(Debug, thiserror::Error)]
#[error("broker URL {url:?}: {problem}; expected amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://… or sqlite:PATH")]
pub struct UrlError {
    /// The URL, without its password.
    pub url: String,
    /// The problem with the URL.
    pub problem: String,
}

/// The session could not be opened. `broker` is the URL without its password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answers.
    #[error("cannot reach the broker at {broker}: {problem}")]
    Unreachable {
        /// URL of the broker.
        broker: String,
        /// Refused, name not found, no route and the like, with a hint on where to look.
        problem: String,
    },
    /// The user or the password is wrong.
    #[error("the broker at {broker} refused the login of user {user:?}: check the user and password in the URL")]
    LoginRefused {
        /// URL of the broker.
        broker: String,
        /// Name of the user.
        user: String,
    },
    /// The virtual host does not exist, or the user has no access to it.
    #[error(
        "the broker at {broker} has no virtual host {vhost:?} for this user: create it, or correct the end of the URL"
    )]
    NoVhost {
        /// URL of the broker.
        broker: String,
        /// Name of the virtual host.
        vhost: String,
    },
    /// The time limit was reached.
    #[error("the broker at {broker} did not answer within {seconds} s")]
    TimedOut {
        /// URL of the broker.
        broker: String,
        /// Time limit in seconds.
        seconds: u64,
    },
    /// No node of the cluster can be used; each has its own reason.
    #[error("no node of the cluster can be used: {}", list(.0))]
    NoNode(Vec<ConnectError>),
    /// Any other failure, including TLS and a damaged file.
    #[error("cannot open the broker {broker}: {problem}")]
    Failed {
        /// URL of the broker.
        broker: String,
        /// The problem.
        problem: String,
    },
}

fn list(errors: &[ConnectError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A session, or one operation on it, failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BrokerError {
    /// The session is gone: open a new one.
    #[error("lost the broker: {0}")]
    Lost(String),
    /// The broker cancelled the consumer, for example because its queue was deleted.
    #[error("the broker ended the consumer of queue {queue:?}: {problem}")]
    ConsumerCancelled {
        /// Name of the queue.
        queue: String,
        /// Reason for the cancellation.
        problem: String,
    },
    /// The broker refused: a missing permission, a different argument, a queue that does not exist.
    #[error("the broker refused: {0}")]
    Refused(String),
}

/// A message was not published, or it is unknown whether it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// No queue would have received it.
    #[error(
        "no queue takes messages from exchange {exchange:?} with routing key {routing_key:?}: \
         bind one (the host does, by its `bindings`), or correct the routing key"
    )]
    Unroutable {
        /// Name of the exchange.
        exchange: String,
        /// Routing key of the message.
        routing_key: String,
    },
    /// The exchange or the queue does not exist.
    #[error("there is no {what} {name:?}: start notify-host once, which makes it, or correct the name")]
    NotFound {
        /// `exchange` or `queue`.
        what: &'static str,
        /// Name of the missing object.
        name: String,
    },
    /// The broker refused this message.
    #[error("the broker refused the message: {0}")]
    Refused(String),
    /// The broker's message format cannot express it; [`crate::Message::make_expressible`] converts it.
    #[error("the broker cannot carry the message: {0}")]
    Inexpressible(String),
    /// The headers do not fit into one frame next to the other properties.
    #[error("the broker cannot carry the message: its headers have {bytes} bytes, and may have {bytes_max}")]
    HeadersTooLarge {
        /// Size of the headers in bytes.
        bytes: usize,
        /// Maximum bytes on this connection, with this message's other properties.
        bytes_max: usize,
    },
    /// The session was lost before the broker confirmed; the message may or may not be in a queue.
    #[error("not confirmed: {0}")]
    Unconfirmed(#[from] BrokerError),
}
