//! Prepares a response for a plugin: removes the values of its secrets from the whole, then truncates the rest. In
//! the other order, the place of the cut would reveal the secret.
//!
//! Everything that a plugin sees of a response derives from the text without secrets, including its length. The
//! receiver of a secret may send it back, and the plugin must not see it.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use outbound::egress::{Body, Head};
use outbound::redact::{Redaction, Redactor};

use crate::capability::secret_store::SecretStore;

/// Request headers that make a server omit parts of a value or write it another way. The host does not send them for
/// a plugin with secrets.
pub(super) const OTHER_FORMS: [HeaderName; 6] = [
    header::ACCEPT_ENCODING,
    header::ACCEPT_CHARSET,
    header::RANGE,
    header::IF_RANGE,
    HeaderName::from_static("request-range"),
    HeaderName::from_static("a-im"),
];
/// Content codings that error messages may name.
const CODINGS: [&str; 8] = ["gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress", "dcb"];

/// Receives a response's body for a plugin with secrets.
pub(super) struct Redacted<'secret_store> {
    secret_store: &'secret_store SecretStore,
    redactor: Arc<Redactor>,
    redaction: Redaction,
    body: Vec<u8>,
    bytes_max: usize,
}

impl<'secret_store> Redacted<'secret_store> {
    pub(super) fn new(secret_store: &'secret_store SecretStore, bytes_max: usize) -> Self {
        let (redactor, redaction) = (secret_store.redactor(), Redaction::default());
        Self { secret_store, redactor, redaction, body: Vec::new(), bytes_max }
    }

    /// Returns the body, and whether it was cut.
    pub(super) fn finish(mut self, head: &Head) -> (Vec<u8>, bool) {
        if !head.is_truncated {
            self.redaction.finish(&self.redactor, &mut self.body);
        }
        let is_truncated = head.is_truncated || self.body.len() > self.bytes_max;
        self.body.truncate(self.bytes_max);
        (self.body, is_truncated)
    }
}

impl Body for Redacted<'_> {
    fn begin(&mut self, headers: &HeaderMap) -> Result<(), String> {
        if let Some(coding) = coding(headers) {
            return Err(format!(
                "its answer is compressed ({coding}), although the host asked for a plain one, and the plugin's secrets cannot \
                 be taken out of it: have the server heed accept-encoding: identity"
            ));
        }
        // A new value may have been sent meanwhile.
        self.redactor = self.secret_store.redactor();
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> bool {
        self.redaction.push(&self.redactor, bytes, &mut self.body);
        self.body.len() <= self.bytes_max
    }
}

/// Returns the encoding of a body, if it has one. An unknown name is not shown, because it may be a secret.
fn coding(headers: &HeaderMap) -> Option<&'static str> {
    let tokens = |name| {
        let values = headers.get_all(name).iter();
        values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
    };
    let of_content = tokens(header::CONTENT_ENCODING).filter(|token| !token.eq_ignore_ascii_case(b"identity"));
    let of_transfer = tokens(header::TRANSFER_ENCODING).filter(|token| !token.eq_ignore_ascii_case(b"chunked"));
    let wrapped = of_content.chain(of_transfer).find(|token| !token.is_empty())?;
    let known = CODINGS.iter().find(|known| wrapped.eq_ignore_ascii_case(known.as_bytes()));
    Some(known.copied().unwrap_or("in a way of its own"))
}

/// Sets the length of the body that the plugin gets, which hides the length of the secrets in it.
pub(super) fn set_length(headers: &mut HeaderMap, method: &Method, status: StatusCode, body: Option<usize>) {
    let had_length = headers.remove(header::CONTENT_LENGTH).is_some();
    let has_body = *method != Method::HEAD && status != StatusCode::NOT_MODIFIED;
    if let Some(bytes) = body.filter(|_| had_length && has_body) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn secret_store(value: &str) -> SecretStore {
        SecretStore::of("token", value)
    }

    /// Returns what a plugin sees of a response that arrives in these pieces.
    fn view(secret_store: &SecretStore, pieces: &[&[u8]], bytes_max: usize) -> (Vec<u8>, bool) {
        let mut body = Redacted::new(secret_store, bytes_max);
        let is_truncated = !pieces.iter().all(|piece| body.take(piece));
        body.finish(&Head { status: StatusCode::OK, headers: HeaderMap::new(), is_truncated })
    }

    proptest! {
        /// For two values of the same length, and a response that contains neither completely, the views are the
        /// same, wherever the limit or the server cuts the response.
        #[test]
        fn an_answer_is_no_oracle(
            one in "[a-z0-9]{20}", other in "[a-z0-9]{20}", guessed in 0usize..20, is_end: bool, before in 0usize..80,
            after in 0usize..3000, bytes_max in 1usize..100, piece in 1usize..50,
        ) {
            prop_assume!(one != other);
            let (secret_stores, mut views) = ([secret_store(&one), secret_store(&other)], Vec::new());
            for guess in [&one, &other] {
                let guess = if is_end { &guess[guessed + 1 - guessed.min(1)..] } else { &guess[..guessed] };
                let answer = format!("{}{guess}{}", "-".repeat(before), "-".repeat(after));
                let pieces: Vec<_> = answer.as_bytes().chunks(piece).collect();
                for secret_store in &secret_stores {
                    let (body, is_truncated) = view(secret_store, &pieces, bytes_max);
                    prop_assert_eq!(body.len(), answer.len().min(bytes_max));
                    prop_assert!(answer.as_bytes().starts_with(&body));
                    prop_assert_eq!(is_truncated, answer.len() > bytes_max);
                    views.push((body, is_truncated));
                }
            }
            prop_assert!(views[0] == views[1] && views[2] == views[3]);
        }

        /// If a server sends the whole value, the view reveals neither its spelling nor its length.
        #[test]
        fn an_answer_with_a_value_in_it_shows_its_name(
            one in "[a-z0-9]{6,30}", other in "[a-z/%&]{6,30}", before in 0usize..80, after in 0usize..3000, bytes_max in 1usize..100,
        ) {
            let views = [&one, &other].map(|value| {
                let written = percent_encoding::percent_encode(value.as_bytes(), percent_encoding::NON_ALPHANUMERIC);
                let answer = format!("{}{written}{}", "-".repeat(before), "-".repeat(after));
                view(&secret_store(value), &answer.as_bytes().chunks(7).collect::<Vec<_>>(), bytes_max)
            });
            prop_assert_eq!(&views[0], &views[1]);
        }
    }

    #[test]
    fn a_body_that_is_wrapped_up_is_known_by_its_head() {
        for (name, value, expected) in [
            ("content-type", "text/plain", None),
            ("content-encoding", "identity", None),
            ("content-encoding", "", None),
            ("content-encoding", "GZip", Some("gzip")),
            ("content-encoding", "identity, br", Some("br")),
            ("content-encoding", "canary", Some("in a way of its own")),
            ("transfer-encoding", "chunked", None),
            ("transfer-encoding", "deflate, chunked", Some("deflate")),
        ] {
            assert_eq!(coding(&headers(&[(name, value)])), expected, "{name}: {value}");
        }
    }

    #[test]
    fn the_length_is_that_of_what_the_plugin_gets() {
        let length = |original: &[(&'static str, &'static str)], method, status, body| {
            let mut headers = headers(original);
            set_length(&mut headers, &method, status, body);
            headers.get(header::CONTENT_LENGTH).map(|length| length.to_str().unwrap().to_owned())
        };
        let told = &[("content-length", "40")];
        assert_eq!(length(told, Method::GET, StatusCode::OK, Some(14)).as_deref(), Some("14"));
        assert_eq!(length(told, Method::GET, StatusCode::OK, None), None, "it was cut");
        assert_eq!(length(told, Method::HEAD, StatusCode::OK, Some(0)), None);
        assert_eq!(length(told, Method::GET, StatusCode::NOT_MODIFIED, Some(0)), None);
        assert_eq!(length(&[], Method::GET, StatusCode::OK, Some(14)), None);
    }
}
