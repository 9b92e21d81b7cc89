//! A link is the connection of one session, with the reason it was lost, once it is.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::Stream;
use lapin::protocol::{AMQPErrorKind, AMQPHardError};
use lapin::types::ShortString;
use lapin::{Channel, Connection, ErrorKind, Event};
use tokio_util::sync::CancellationToken;

use crate::BrokerError;
use crate::amqp::connect::{SocketHandle, hang_up};
use crate::amqp::convert::short_string;

/// How long a peer may take to answer a good-bye.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(5);
pub(super) const REPLY_SUCCESS: u16 = 200;
const CHANNEL_NUMBERS_MAX: usize = u16::MAX as usize;

#[derive(Debug)]
pub(super) struct AmqpConnection {
    connection: Connection,
    socket: SocketHandle,
    lost: OnceLock<String>,
    /// The reason is one that a message can be the cause of.
    by_message: AtomicBool,
    /// That nothing comes by it any more.
    gone: CancellationToken,
}

impl AmqpConnection {
    pub(super) fn new((connection, socket): (Connection, SocketHandle)) -> Self {
        Self {
            connection,
            socket,
            lost: OnceLock::new(),
            by_message: AtomicBool::new(false),
            gone: CancellationToken::new(),
        }
    }

    /// A new channel. It closes when its last clone is dropped.
    ///
    /// RabbitMQ never refuses just a channel. But lapin keeps the error that closed a channel under
    /// its number for as long as the connection lives, and tells it again when the numbers have gone
    /// round. Then the next number will do.
    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        for _ in 0..CHANNEL_NUMBERS_MAX {
            match self.connection.create_channel().await {
                Ok(channel) => return Ok(channel),
                Err(error) if refusal(&error).is_some() => {}
                Err(error) => return Err(self.lost(Some(&error))),
            }
        }
        Err(self.lost(None))
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    pub(super) fn frame_bytes_max(&self) -> usize {
        usize::try_from(self.connection.configuration().frame_max()).unwrap_or(usize::MAX)
    }

    /// Why something failed: the link is lost, or RabbitMQ said no and closed only the channel.
    pub(super) fn explain(&self, error: &lapin::Error) -> BrokerError {
        match refusal(error) {
            Some((_, text)) => BrokerError::Refused(text),
            None => self.lost(Some(error)),
        }
    }

    /// That the link is lost, with the best reason there is so far.
    pub(super) fn lost(&self, error: Option<&lapin::Error>) -> BrokerError {
        if let Some((error, reason)) = error.and_then(|error| Some((error, reason(error)?))) {
            // The first one is the cause, later ones its effects.
            if self.lost.set(reason).is_ok() {
                self.by_message.store(is_about_content(error), Ordering::Relaxed);
            }
        }
        BrokerError::Lost(self.lost.get().cloned().unwrap_or_else(|| "the connection was closed".to_owned()))
    }

    /// A task that works on what comes by this link has panicked.
    pub(super) fn failed(&self, task: &str) {
        if self.lost.set(format!("{task} panicked")).is_ok() {
            self.by_message.store(true, Ordering::Relaxed);
        }
    }

    /// Why the link was lost, if a message can be the cause of that.
    pub(super) fn broken_by_message(&self) -> Option<String> {
        if self.by_message.load(Ordering::Relaxed) { self.lost.get().cloned() } else { None }
    }

    /// What RabbitMQ says about the connection from now on. Ends with it.
    pub(super) fn events(&self) -> impl Stream<Item = Event> + Send + 'static {
        self.connection.events_listener()
    }

    /// Ends, because the other connection of the session is lost; for the same reason. At once: lapin waits for
    /// the answer to a good-bye for ever, and its consumers with it, and the peer may be silent here too.
    pub(super) fn lose_with(&self, other: &Self) {
        if let BrokerError::Lost(reason) = other.lost(None) {
            let _ = self.lost.set(reason);
        }
        hang_up(&self.socket);
    }

    /// Whoever waits for an answer need not wait any longer.
    pub(super) fn go(&self) {
        self.gone.cancel();
    }

    /// Waits until nothing comes any more.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    pub(super) async fn close(&self) {
        let close = self.connection.close(REPLY_SUCCESS, "OK".into());
        // One that is lost is closed already; one that does not answer is not waited for.
        let _ = tokio::time::timeout(CLOSE_LIMIT, close).await;
        hang_up(&self.socket);
    }
}

/// RabbitMQ's code and text, where it closed no more than the channel.
pub(super) fn refusal(error: &lapin::Error) -> Option<(u16, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(error) if matches!(error.kind(), AMQPErrorKind::Soft(_)) => {
            Some((error.get_id(), error.get_message().to_string()))
        }
        _ => None,
    }
}

/// A name that AMQP can express.
pub(super) fn refused_name(what: &str, name: &str) -> Result<ShortString, BrokerError> {
    short_string(what, name).map_err(BrokerError::Refused)
}

/// Whether what was sent over the connection ended it, in either direction, and not the network, the broker's own end
/// or a rule about connections.
fn is_about_content(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Hard(
                AMQPHardError::FRAMEERROR
                | AMQPHardError::SYNTAXERROR
                | AMQPHardError::COMMANDINVALID
                | AMQPHardError::UNEXPECTEDFRAME
                | AMQPHardError::NOTIMPLEMENTED
                // A process of RabbitMQ's that handles the connection has failed.
                | AMQPHardError::INTERNALERROR,
            ) => true,
            AMQPErrorKind::Hard(
                AMQPHardError::CONNECTIONFORCED
                | AMQPHardError::INVALIDPATH
                | AMQPHardError::CHANNELERROR
                | AMQPHardError::RESOURCEERROR
                | AMQPHardError::NOTALLOWED,
            )
            | AMQPErrorKind::Soft(_) => false,
        },
        ErrorKind::IOError(error) => error.kind() == io::ErrorKind::InvalidData,
        ErrorKind::ParsingError(_) | ErrorKind::SerialisationError(_) => true,
        _ => false,
    }
}

fn reason(error: &lapin::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(format!("it closed the connection: {}", error.get_message())),
        ErrorKind::IOError(error) | ErrorKind::RuntimeShutdownError(error) => {
            Some(format!("the connection broke: {error}"))
        }
        ErrorKind::MissingHeartbeatError => Some("it has been silent for too long (no heartbeat)".to_owned()),
        ErrorKind::ParsingError(_) => Some("it sent something that cannot be read as AMQP".to_owned()),
        // Only says that it is over, not why.
        ErrorKind::InvalidChannel(_) | ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_) => {
            None
        }
        ErrorKind::ChannelsLimitReached => Some("all its channels are used up".to_owned()),
        _ => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPSoftError};

    use super::*;

    #[test]
    fn only_what_a_message_can_cause_is_laid_to_one() {
        let closed =
            |kind: AMQPErrorKind| lapin::Error::from(ErrorKind::ProtocolError(AMQPError::new(kind, "x".into())));
        let hard = |error: AMQPHardError| closed(error.into());
        let io = |kind: io::ErrorKind| lapin::Error::from(io::Error::from(kind));
        for (error, expected) in [
            (hard(AMQPHardError::FRAMEERROR), true),
            (hard(AMQPHardError::INTERNALERROR), true),
            (hard(AMQPHardError::CONNECTIONFORCED), false),
            (hard(AMQPHardError::RESOURCEERROR), false),
            (closed(AMQPSoftError::PRECONDITIONFAILED.into()), false),
            (io(io::ErrorKind::InvalidData), true),
            (io(io::ErrorKind::ConnectionReset), false),
            (io(io::ErrorKind::UnexpectedEof), false),
            (ErrorKind::MissingHeartbeatError.into(), false),
        ] {
            assert_eq!(is_about_content(&error), expected, "{error}");
        }
    }
}
