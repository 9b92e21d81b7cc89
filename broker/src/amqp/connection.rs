//! One of a session's two connections, with the reason it was lost once it is.

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

/// Time limit for a peer to answer a close.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(5);
pub(super) const REPLY_SUCCESS: u16 = 200;
const CHANNEL_NUMBERS_MAX: usize = u16::MAX as usize;

#[derive(Debug)]
pub(super) struct AmqpConnection {
    connection: Connection,
    socket: SocketHandle,
    lost: OnceLock<String>,
    /// Whether a message may have caused the loss.
    by_message: AtomicBool,
    /// Cancelled once nothing more arrives on this connection.
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

    /// Opens a new channel. It closes when its last clone is dropped.
    ///
    /// RabbitMQ never refuses only a channel. But lapin stores the error that closed a channel
    /// under the channel's number for as long as the connection lives, and reports it again when
    /// the number is reused. In this case the next number works.
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

    /// Explains a failure: the connection is lost, or RabbitMQ refused and closed only the channel.
    pub(super) fn explain(&self, error: &lapin::Error) -> BrokerError {
        match refusal(error) {
            Some((_, text)) => BrokerError::Refused(text),
            None => self.lost(Some(error)),
        }
    }

    /// Returns the error for a lost connection, with the best reason known so far.
    pub(super) fn lost(&self, error: Option<&lapin::Error>) -> BrokerError {
        if let Some((error, reason)) = error.and_then(|error| Some((error, reason(error)?))) {
            // The first error is the cause, later ones are its effects.
            if self.lost.set(reason).is_ok() {
                self.by_message.store(is_about_content(error), Ordering::Relaxed);
            }
        }
        BrokerError::Lost(self.lost.get().cloned().unwrap_or_else(|| "the connection was closed".to_owned()))
    }

    /// Records that a task which handles data from this connection has panicked.
    pub(super) fn failed(&self, task: &str) {
        if self.lost.set(format!("{task} panicked")).is_ok() {
            self.by_message.store(true, Ordering::Relaxed);
        }
    }

    /// Returns why the connection was lost, if a message may be the cause.
    pub(super) fn broken_by_message(&self) -> Option<String> {
        if self.by_message.load(Ordering::Relaxed) { self.lost.get().cloned() } else { None }
    }

    /// Returns RabbitMQ's events about this connection from now on. The stream ends with the connection.
    pub(super) fn events(&self) -> impl Stream<Item = Event> + Send + 'static {
        self.connection.events_listener()
    }

    /// Closes this connection at once, because the session's other one is lost, and for the same
    /// reason. lapin would wait forever for the answer to a close, and so would its consumers; the
    /// peer may be silent on this connection too.
    pub(super) fn lose_with(&self, other: &Self) {
        if let BrokerError::Lost(reason) = other.lost(None) {
            let _ = self.lost.set(reason);
        }
        hang_up(&self.socket);
    }

    /// Releases all callers that wait in `gone`.
    pub(super) fn go(&self) {
        self.gone.cancel();
    }

    /// Waits until nothing more arrives on this connection.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    pub(super) async fn close(&self) {
        let close = self.connection.close(REPLY_SUCCESS, "OK".into());
        // A lost connection is closed already, and one that does not answer is not waited for.
        let _ = tokio::time::timeout(CLOSE_LIMIT, close).await;
        hang_up(&self.socket);
    }
}

/// Returns RabbitMQ's code and text, if it closed only the channel.
pub(super) fn refusal(error: &lapin::Error) -> Option<(u16, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(error) if matches!(error.kind(), AMQPErrorKind::Soft(_)) => {
            Some((error.get_id(), error.get_message().to_string()))
        }
        _ => None,
    }
}

/// Converts a name to an AMQP short string; a name that does not fit counts as refused.
pub(super) fn refused_name(what: &str, name: &str) -> Result<ShortString, BrokerError> {
    short_string(what, name).map_err(BrokerError::Refused)
}

/// Returns whether data sent over the connection, in either direction, ended it, rather than the
/// network, the broker's own shutdown or a rule about connections.
fn is_about_content(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Hard(
                AMQPHardError::FRAMEERROR
                | AMQPHardError::SYNTAXERROR
                | AMQPHardError::COMMANDINVALID
                | AMQPHardError::UNEXPECTEDFRAME
                | AMQPHardError::NOTIMPLEMENTED
                // The RabbitMQ process that handles the connection has failed.
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
        // These only say that the connection is over, not why.
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
