//! The guard stands between the socket and lapin, so that no message can end the connection.
//!
//! lapin's parser recurses once for each level of nesting without a bound, and refuses text that is
//! not UTF-8. Either one ends the connection, and then the broker offers the message again.
//! RabbitMQ accepts both from any publisher.
//!
//! The guard follows AMQP's frames (<https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf>,
//! section 4.2) and passes only frames that lapin can read. It moves the properties of a message to
//! the front of its body, see [`preamble`], where lapin does not look. [`properties`] reads them
//! there, with bounded depth and a rule for text in another encoding.
//!
//! It sits above TLS and sees every delivery, every answer to `basic.get` and every returned
//! message. It does not change outgoing data.

pub(super) mod arrived;
mod filter;
pub(super) mod preamble;
pub(super) mod properties;
mod text;
mod transport;

pub(super) use crate::amqp::guard::transport::{Guarded, guarded_runtime};

/// The guard's work on each message, without a connection: for `cargo xtask bench guard`.
#[derive(Debug, Default)]
pub struct GuardBench(filter::Filter);

impl GuardBench {
    /// Passes on bytes that came from a broker.
    pub fn pass<T>(&mut self, bytes: &[u8], read: impl FnOnce(&[u8]) -> T) -> std::io::Result<T> {
        self.0.push(bytes)?;
        let unread = self.0.unread();
        let (count, read) = (unread.len(), read(unread));
        self.0.mark_read(count);
        Ok(read)
    }

    /// Returns the message in a body that was passed on.
    pub fn message(body: Vec<u8>) -> Option<crate::Message> {
        arrived::from_guard(body).map(|arrived| arrived.message)
    }
}
