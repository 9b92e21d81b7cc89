//! A request that may leave: its URL in the one spelling that is checked and then used, its headers without those of
//! the connection, everything within bounds.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body_util::Full;

use crate::egress::failure::EgressError;
use crate::egress::target::Target;
use crate::egress::urls::{cut, parse_url};

const METHOD_BYTES_MAX: usize = 32;
const HEADERS_MAX: usize = 100;
/// Maximum bytes of header names and values together.
const HEADER_BYTES_MAX: usize = 32 << 10;
const USER_AGENT: &str = concat!("notify-host/", env!("CARGO_PKG_VERSION"));

/// Headers that plugins may not set. They describe the transfer, which is the host's business (RFC 9110, 7.6.1), or
/// the destination, which the URL names.
const HEADERS_OF_THE_HOST: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A well-formed request. The gate decides whether it may go to its destination.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub url: Target,
    headers: HeaderMap,
    header_bytes: usize,
    pub body: Bytes,
}

impl Request {
    pub fn new(method: &str, url: &str, body: impl Into<Bytes>) -> Result<Self, EgressError> {
        Self::to(method, Target::new(parse_url(url)?)?, body)
    }

    pub fn to(method: &str, url: Target, body: impl Into<Bytes>) -> Result<Self, EgressError> {
        let method = parse_method(method)?;
        Ok(Self { method, url, headers: HeaderMap::new(), header_bytes: 0, body: body.into() })
    }

    /// Adds a header. Its value may be marked as sensitive.
    pub fn header(&mut self, name: &str, value: HeaderValue) -> Result<(), EgressError> {
        let bytes = value.len();
        self.counted_header(name, value, bytes)
    }

    /// Adds a header whose value counts as `bytes` bytes. Otherwise the room left would reveal the length of a
    /// secret.
    pub fn counted_header(&mut self, name: &str, value: HeaderValue, bytes: usize) -> Result<(), EgressError> {
        let name = parse_name(name)?;
        if belongs_to_the_host(&name) {
            return Err(EgressError::Invalid(format!("the header {name} is set by the host: leave it out")));
        }
        self.header_bytes += name.as_str().len() + bytes;
        if self.headers.len() >= HEADERS_MAX || self.header_bytes > HEADER_BYTES_MAX {
            let kib = HEADER_BYTES_MAX >> 10;
            return Err(EgressError::Quota(format!("the headers are more than {HEADERS_MAX}, or more than {kib} KiB")));
        }
        self.headers.append(name, value);
        Ok(())
    }

    /// Asks for an unencoded response, and removes the headers that would ask for another form.
    pub fn wants_identity(&mut self, others: &[HeaderName]) {
        for name in others {
            self.headers.remove(name);
        }
        self.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }

    /// Builds the HTTP request. Content-Length follows from the body.
    pub(super) fn into_http(self) -> http::Request<Full<Bytes>> {
        let mut request = http::Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.url.path();
        *request.headers_mut() = self.headers;
        request.headers_mut().insert(header::HOST, self.url.host());
        request.headers_mut().entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        request
    }
}

/// Returns whether only the host may set this header.
pub fn belongs_to_the_host(name: &HeaderName) -> bool {
    HEADERS_OF_THE_HOST.contains(&name.as_str())
}

/// Parses a header value from bytes.
pub fn parse_value(name: &str, value: &[u8]) -> Result<HeaderValue, EgressError> {
    // The value may be a secret, so the error does not show it.
    HeaderValue::from_bytes(value).map_err(|_| {
        EgressError::Invalid(format!("the value of the header {name:?} has a character that none may have"))
    })
}

fn parse_name(name: &str) -> Result<HeaderName, EgressError> {
    name.parse().map_err(|_| EgressError::Invalid(format!("{:?} is no name of a header", cut(name))))
}

fn parse_method(method: &str) -> Result<Method, EgressError> {
    let refused = |why| EgressError::Invalid(format!("the method {:?} {why}", cut(method)));
    if method.len() > METHOD_BYTES_MAX {
        return Err(refused("is too long"));
    }
    if ["CONNECT", "TRACE", "TRACK"].iter().any(|known| known.eq_ignore_ascii_case(method)) {
        return Err(refused("is not for plugins"));
    }
    Method::from_bytes(method.as_bytes()).map_err(|_| refused("is none"))
}
