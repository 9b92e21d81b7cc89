//! HTTP through the host: build a request, send it, and turn the response into an outcome.
//!
//! ```no_run
//! use notify_plugin::{Handled, http::Request, secret};
//!
//! fn tell(text: &str) -> Handled {
//!     let token = secret("token")?;
//!     let response = Request::post("https://api.example.com/messages")
//!         .secret_header("authorization", "Bearer ", &token)
//!         .json(&serde_json::json!({ "text": text }))
//!         .send()?;
//!     response.outcome(&[])
//! }
//! ```

mod retry_after;
mod status;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::notify::plugin::http::{self as contract, HeaderValue};
use crate::bindings::notify::plugin::secrets::Secret;
use crate::{Failure, Handled, HostError, clock, reject, snippet};

pub use crate::http::retry_after::{RETRY_AFTER_MAX, parse_retry_after};
pub use crate::http::status::Meaning;

/// A request under construction.
#[derive(Debug)]
#[must_use]
pub struct Request<'secret> {
    request: contract::Request<'secret>,
    /// Error in the construction, which [`Request::send`] returns.
    fault: Option<String>,
}

impl<'secret> Request<'secret> {
    /// Creates a request with this method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let request = contract::Request {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: None,
        };
        Self { request, fault: None }
    }

    /// Creates a GET request.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// Creates a POST request.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// Creates a PUT request.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.headers.push((name.into(), HeaderValue::Text(value.into())));
        self
    }

    /// Adds a header with `prefix` followed by the secret's value, which the host fills in.
    pub fn secret_header(
        mut self,
        name: impl Into<String>,
        prefix: impl Into<String>,
        secret: &'secret Secret,
    ) -> Self {
        self.request.headers.push((name.into(), HeaderValue::Secret((prefix.into(), secret))));
        self
    }

    /// Sets the body and its `Content-Type`.
    pub fn body(mut self, content_type: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        self.request.body = body.into();
        self.header("content-type", content_type)
    }

    /// Sets the body to this value as JSON.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.body("application/json", body),
            Err(error) => {
                self.fault = Some(format!("the body cannot be written as JSON: {error}"));
                self
            }
        }
    }

    /// Sets a time limit for the whole request. The attempt's remaining time is a limit as well.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Sends the request. Any status counts as a response.
    ///
    /// # Errors
    ///
    /// Returns the host's error: [`HostError::Denied`] without a grant, [`HostError::Unavailable`]
    /// if nothing answers, …
    pub fn send(self) -> Result<Response, HostError> {
        if let Some(fault) = self.fault {
            return Err(HostError::Invalid(fault));
        }
        let contract::Response { status, headers, body, truncated } = contract::send(&self.request)?;
        Ok(Response { is_truncated: truncated, ..Response::new(status, headers, body) })
    }
}

/// A server's response.
#[derive(Clone, Debug)]
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    is_truncated: bool,
}

impl Response {
    /// Creates a response for tests.
    pub fn new(status: u16, headers: Vec<(String, Vec<u8>)>, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers, body: body.into(), is_truncated: false }
    }

    /// Returns the status: 200, 404, …
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the first header of this name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        named.find_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Returns the body unchanged.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns whether the body exceeded the host's limit and was cut.
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Returns the body as text. Invalid UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// Parses the JSON body into a type of the plugin's own.
    ///
    /// # Errors
    ///
    /// Returns [`Failure::Reject`] with the code `bad-response` if the body does not fit.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| reject("bad-response", format!("HTTP {}: {error}: {}", self.status, snippet(&self.body))))
    }

    /// Returns the delay that the server requests by `Retry-After`.
    ///
    /// A date in it counts from the server's own `Date`, so a wrong server clock does not matter.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_from(clock::now)
    }

    fn retry_after_from(&self, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
        let value = self.header("retry-after")?;
        let date = self.header("date").and_then(|date| httpdate::parse_http_date(date).ok());
        parse_retry_after(value, date.unwrap_or_else(now))
    }

    /// Returns the outcome of the event that was sent.
    ///
    /// `meanings` lists statuses with a special meaning at this server. Others follow [`Meaning::of_status`]. The
    /// reason of a failure contains the status and the beginning of the body.
    pub fn outcome(&self, meanings: &[(u16, Meaning)]) -> Handled {
        let own = meanings.iter().find(|(status, _)| *status == self.status).map(|(_, meaning)| *meaning);
        own.unwrap_or_else(|| Meaning::of_status(self.status)).outcome(self.status, &self.said(), self.retry_after())
    }

    /// Returns the server's message, short enough for the reason of an outcome.
    fn said(&self) -> String {
        let body = snippet(&self.body);
        match self.header("location").filter(|_| (300..400).contains(&self.status)) {
            Some(location) => {
                format!("redirects are not followed; this one leads to {}", snippet(location.as_bytes()))
            }
            None => body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outcome, Rejection};

    fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        Response::new(status, headers.collect(), body)
    }

    fn failure(response: &Response, meanings: &[(u16, Meaning)]) -> Failure {
        response.outcome(meanings).expect_err("it is a failure")
    }

    #[test]
    fn a_response_becomes_an_outcome() {
        assert!(matches!(response(204, &[], "").outcome(&[]), Ok(Outcome::Done(Some(note))) if note == "HTTP 204"));
        let Failure::Reject(Rejection { code, reason }) = failure(&response(404, &[], "no such\nhook"), &[]) else {
            panic!("404 is a rejection")
        };
        assert_eq!((&*code, &*reason), ("http-404", "HTTP 404: no such hook"));
        let Failure::Misconfigured(reason) = failure(&response(410, &[], ""), &[]) else { panic!("410 is gone") };
        assert_eq!(reason, "HTTP 410");
        let moved = response(302, &[("Location", "http://169.254.169.254/\r\nx")], "moved");
        let Failure::Misconfigured(reason) = failure(&moved, &[]) else { panic!("a redirect is not followed") };
        assert_eq!(reason, "HTTP 302: redirects are not followed; this one leads to http://169.254.169.254/ x");
    }

    #[test]
    fn a_server_has_statuses_with_a_meaning_of_their_own() {
        let meanings = [(404, Meaning::Misconfigured), (409, Meaning::Done), (503, Meaning::Reject)];
        assert!(matches!(failure(&response(404, &[], ""), &meanings), Failure::Misconfigured(_)));
        assert!(matches!(response(409, &[], "").outcome(&meanings), Ok(Outcome::Done(_))));
        assert!(matches!(failure(&response(503, &[], ""), &meanings), Failure::Reject(_)));
        assert!(matches!(failure(&response(429, &[], ""), &meanings), Failure::Retry(_)));
    }

    #[test]
    fn a_date_to_wait_for_is_by_the_servers_own_clock() {
        let now = || SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let at = "Sun, 06 Nov 1994 08:51:37 GMT";
        let without = response(503, &[("retry-after", at)], "");
        assert_eq!(without.retry_after_from(now), Some(Duration::ZERO), "it has passed by our clock");
        let with = response(503, &[("RETRY-AFTER", at), ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")], "");
        assert_eq!(with.retry_after_from(now), Some(Duration::from_mins(2)));
        let Failure::Retry(retry) = failure(&with, &[]) else { panic!("503 is tried again") };
        assert_eq!(retry.after, Some(120_000));
        assert_eq!(response(503, &[], "").retry_after(), None);
        assert_eq!(response(503, &[("retry-after", "soon")], "").retry_after(), None);
    }

    #[test]
    fn headers_are_found_in_any_case_and_only_as_text() {
        let headers = vec![("X-A".to_owned(), b"\xff".to_vec()), ("x-a".to_owned(), b"b".to_vec())];
        assert_eq!(Response::new(200, headers, "").header("x-A"), Some("b"));
        assert_eq!(response(200, &[], "").header("x-a"), None);
    }

    #[test]
    fn a_body_that_is_not_json_is_told_and_shown() {
        let Err(Failure::Reject(rejection)) = response(200, &[], "<html>").json::<u32>() else { panic!() };
        assert_eq!(rejection.code, "bad-response");
        assert!(rejection.reason.ends_with("<html>"), "{}", rejection.reason);
        assert_eq!(response(200, &[], "7").json::<u32>().ok(), Some(7));
    }

    #[test]
    fn a_body_that_cannot_be_written_is_told_instead_of_sent() {
        let unfit = std::collections::BTreeMap::from([((1, 2), 3)]);
        let Err(HostError::Invalid(reason)) = Request::post("https://a.example").json(&unfit).send() else { panic!() };
        assert!(reason.starts_with("the body cannot be written as JSON"), "{reason}");
    }
}
