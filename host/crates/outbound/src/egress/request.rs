//! A request as it may leave: its URL in the one spelling that is checked and then used, its headers without those
//! that belong to the connection, all of it within bounds.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body_util::Full;
use url::Url;

use crate::egress::failure::EgressError;
use crate::egress::target::Target;

const URL_BYTES_MAX: usize = 8 << 10;
const METHOD_BYTES_MAX: usize = 32;
const HEADERS_MAX: usize = 100;
/// Names and values together.
const HEADER_BYTES_MAX: usize = 32 << 10;
const USER_AGENT: &str = concat!("notify-host/", env!("CARGO_PKG_VERSION"));

/// Headers that say how the bytes travel, which is the host's business (RFC 9110, 7.6.1), or who is asked, which the URL says.
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

/// A request that makes sense. Whether it may go where it wants to is for the gate to say.
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

    /// Adds a header. Its value may be one that is marked as sensitive.
    pub fn header(&mut self, name: &str, value: HeaderValue) -> Result<(), EgressError> {
        let bytes = value.len();
        self.counted_header(name, value, bytes)
    }

    /// The same, of a value that counts as so many bytes: whether there is room for it must not tell how long a secret is.
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

    /// Asks for an answer as it is, without what these headers would ask for.
    pub fn wants_identity(&mut self, others: &[HeaderName]) {
        for name in others {
            self.headers.remove(name);
        }
        self.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }

    /// As it goes out. Content-Length is made of the body.
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

/// Whether a plugin leaves this header to the host.
pub fn belongs_to_the_host(name: &HeaderName) -> bool {
    HEADERS_OF_THE_HOST.contains(&name.as_str())
}

/// The value of a header as bytes that somebody gave.
pub fn parse_value(name: &str, value: &[u8]) -> Result<HeaderValue, EgressError> {
    // The value itself may be a secret, and is not shown.
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

/// The one spelling of a URL: what the standard's parser makes of it, without a dot at the end of its host.
pub fn parse_url(text: &str) -> Result<Url, EgressError> {
    parse_url_within(text, URL_BYTES_MAX)
}

/// One with values in it that do not count.
pub fn parse_long_url(text: &str) -> Result<Url, EgressError> {
    parse_url_within(text, usize::MAX)
}

fn parse_url_within(text: &str, bytes_max: usize) -> Result<Url, EgressError> {
    let refused = |why: &str| EgressError::Invalid(format!("the URL {:?} {why}", cut(text)));
    if text.len() > bytes_max {
        return Err(refused(&format!("has {} bytes, and may have {bytes_max}", text.len())));
    }
    let mut url = Url::parse(text).map_err(|error| refused(&format!("is none: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("is neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Whatever stands there is not shown: it may be a password.
        return Err(EgressError::Invalid(
            "the URL has a user in front of its host: send a header Authorization instead".to_owned(),
        ));
    }
    if let Some(host) = url.host_str().and_then(|host| host.strip_suffix('.')).map(str::to_owned) {
        url.set_host(Some(&host)).map_err(|_| refused("has no host"))?;
    }
    url.set_fragment(None);
    if url.as_str().len() > bytes_max {
        return Err(refused(&format!("has more than {bytes_max} bytes once it is escaped")));
    }
    Ok(url)
}

/// What is shown of what a guest wrote.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(200)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
