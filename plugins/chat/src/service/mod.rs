//! Services: what a message looks like there, and what an answer means.

pub(crate) mod discord;
pub(crate) mod gotify;
pub(crate) mod matrix;
pub(crate) mod mattermost;
pub(crate) mod ntfy;
pub(crate) mod slack;
pub(crate) mod teams;
pub(crate) mod telegram;

use crate::exchange::{Reply, Request, Verdict};
use crate::fit::Escape;
use crate::message::Message;

/// One place at one service.
pub(crate) trait Service {
    /// For people; no token is in it.
    fn label(&self) -> String;

    /// How a value is escaped in the markup of this service.
    fn escape(&self) -> Escape;

    /// Whether a message that comes again with the same key is told to nobody twice.
    fn recognises_repetitions(&self) -> bool {
        false
    }

    /// `key` is the same for each attempt at one event.
    fn request(&self, message: &Message, key: &str) -> Request;

    fn judge(&self, reply: &Reply) -> Verdict;

    /// The same place, after it has moved.
    fn moved(&self, _to: i64) -> Option<Box<dyn Service>> {
        None
    }
}

/// The request of a service that is told by JSON in a POST.
fn post(url: String, body: Vec<u8>) -> Request {
    Request { method: "POST", url, authorization: None, body }
}
