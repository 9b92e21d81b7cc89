//! A message as the guard passes it on.

use crate::amqp::guard::preamble::{self, GuardedContent, Names};
use crate::amqp::guard::properties::{self, Reading};
use crate::{Message, Unreadable};

/// Reads a delivery as the guard passes it on: body and properties, and the names in its method
/// frame if lapin could not read them. `None` if it did not pass the guard.
pub(in crate::amqp) fn from_guard(data: Vec<u8>) -> Option<Arrived> {
    let GuardedContent { body, properties: raw, names } = preamble::split(data)?;
    let Reading { properties, problem } = properties::read(&raw);
    let unreadable = problem.map(|problem| Box::new(Unreadable { problem, properties: raw }));
    Some(Arrived { message: Message { body, properties }, names, unreadable })
}

#[derive(Debug)]
pub(in crate::amqp) struct Arrived {
    pub(in crate::amqp) message: Message,
    pub(in crate::amqp) names: Option<Names>,
    pub(in crate::amqp) unreadable: Option<Box<Unreadable>>,
}
