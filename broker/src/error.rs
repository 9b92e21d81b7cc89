//! What can go wrong with a broker, by what the caller can do about it.

/// A broker URL that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("broker URL {url:?}: {problem}; expected amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://… or sqlite:PATH")]
pub struct UrlError {
    /// The URL, without its password.
    pub url: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A session could not be opened. `broker` is the URL without its password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answers.
    #[error("cannot reach the broker at {broker}: {problem}")]
    Unreachable {
        /// Where.
        broker: String,
        /// Refused, name not found, no route, … and what to look at.
        problem: String,
    },
    /// User or password is wrong.
    #[error("the broker at {broker} refused the login of user {user:?}: check the user and password in the URL")]
    LoginRefused {
        /// Where.
        broker: String,
        /// Who.
        user: String,
    },
    /// The virtual host does not exist, or the user may not enter it.
    #[error(
        "the broker at {broker} has no virtual host {vhost:?} for this user: create it, or correct the end of the URL"
    )]
    NoVhost {
        /// Where.
        broker: String,
        /// Which.
        vhost: String,
    },
    /// It took too long.
    #[error("the broker at {broker} did not answer within {seconds} s")]
    TimedOut {
        /// Where.
        broker: String,
        /// The limit.
        seconds: u64,
    },
    /// Of the nodes of a cluster none can be used; each with its own reason.
    #[error("no node of the cluster can be used: {}", list(.0))]
    NoNode(Vec<ConnectError>),
    /// Anything else, TLS and a damaged file among them.
    #[error("cannot open the broker {broker}: {problem}")]
    Failed {
        /// Where.
        broker: String,
        /// What.
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
    /// The consumer was cancelled by the broker (its queue was deleted, say).
    #[error("the broker ended the consumer of queue {queue:?}: {problem}")]
    ConsumerCancelled {
        /// The queue.
        queue: String,
        /// Why.
        problem: String,
    },
    /// The broker said no: a permission, an argument that differs, a queue that is absent.
    #[error("the broker refused: {0}")]
    Refused(String),
}

/// A message was not published, or nobody can say that it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// No queue would have got it.
    #[error(
        "no queue takes messages from exchange {exchange:?} with routing key {routing_key:?}: \
         bind one (the host does, by its `bindings`), or correct the routing key"
    )]
    Unroutable {
        /// The exchange.
        exchange: String,
        /// The routing key.
        routing_key: String,
    },
    /// The exchange, or the queue, does not exist.
    #[error("there is no {what} {name:?}: start notify-host once, which makes it, or correct the name")]
    NotFound {
        /// `exchange` or `queue`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The broker said no to this message.
    #[error("the broker refused the message: {0}")]
    Refused(String),
    /// The broker's message format cannot express it; [`crate::Message::make_expressible`] finds a form that it can.
    #[error("the broker cannot carry the message: {0}")]
    Inexpressible(String),
    /// Its headers do not fit into one frame beside its other properties.
    #[error("the broker cannot carry the message: its headers have {bytes} bytes, and may have {bytes_max}")]
    HeadersTooLarge {
        /// The size of the headers.
        bytes: usize,
        /// The limit on this connection, with this message's other properties.
        bytes_max: usize,
    },
    /// The session was lost before the broker confirmed; the message may be there or not.
    #[error("not confirmed: {0}")]
    Unconfirmed(#[from] BrokerError),
}
