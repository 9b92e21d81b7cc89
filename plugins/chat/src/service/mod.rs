//! Services: how each one formats a message, and how it answers.

pub(crate) mod discord;
pub(crate) mod gotify;
pub(crate) mod matrix;
pub(crate) mod mattermost;
pub(crate) mod ntfy;
pub(crate) mod slack;
pub(crate) mod teams;
pub(crate) mod telegram;

use crate::exchange::{Request, SendOutcome, ServiceReply};
use crate::fit::Escape;
use crate::message::Message;

/// One destination at one service.
pub(crate) trait Service {
    /// Returns a name for people, without any token.
    fn label(&self) -> String;

    /// Returns how to escape a value in this service's markup.
    fn escape(&self) -> Escape;

    /// Returns whether a repeated message with the same key is shown only once.
    fn recognises_repetitions(&self) -> bool {
        false
    }

    /// Builds the request. `key` is the same for each attempt at one event.
    fn request(&self, message: &Message, key: &str) -> Request;

    fn judge(&self, reply: &ServiceReply) -> SendOutcome;

    /// Returns the destination after it has moved.
    fn moved(&self, _to: i64) -> Option<Box<dyn Service>> {
        None
    }
}

/// Builds a POST request with a JSON body.
fn post(url: String, body: Vec<u8>) -> Request {
    Request { method: "POST", url, authorization: None, body }
}
