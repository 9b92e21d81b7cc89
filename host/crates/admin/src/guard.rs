//! Guards the admin server. It requires the token if one is set, rejects requests from other sites' pages in a browser
//! on this machine, and rejects changes that were not explicitly intended.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::refusal::Refusal;
use crate::token::Access;

/// Header that marks a change as intended, for requests without a JSON body. Forms and links of other pages cannot set
/// it.
const MEANT: &str = "x-notify-request";
/// Content security policy: nothing from elsewhere, nothing inline, and no framing.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) struct Guard {
    pub(super) address: IpAddr,
    /// Host names that are accepted besides this machine's own, in lower case.
    pub(super) hosts: Vec<String>,
    access: Access,
}

impl Guard {
    pub(super) fn new(address: SocketAddr, hosts: Vec<String>, access: Access) -> Self {
        Self { address: address.ip().to_canonical(), hosts, access }
    }

    fn judge(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = text(headers, &header::HOST)
            .ok_or_else(|| Refusal::bad_request("the request has no Host header, or one that is no text"))?;
        if !self.is_called(host) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                format!("this host is not called {host:?}: add the name to admin-hosts, if it is right"),
            ));
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = text(headers, &header::ORIGIN).unwrap_or_default();
            let of = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if !of.is_some_and(|of| of.eq_ignore_ascii_case(host)) {
                let sentence = format!("a page of {origin:?} may not ask this host");
                return Err(Refusal::new(StatusCode::FORBIDDEN, sentence));
            }
        }
        if !is_open(path) {
            self.let_in(headers)?;
        }
        if ![Method::GET, Method::HEAD].contains(method) && !is_meant(headers) {
            let sentence =
                "a change must say that it is meant: send Content-Type: application/json, or X-Notify-Request: 1";
            return Err(Refusal::new(StatusCode::FORBIDDEN, sentence));
        }
        Ok(())
    }

    fn let_in(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let sentence = match &self.access {
            Access::Everybody => return Ok(()),
            Access::Token(token) => {
                let given = text(headers, &header::AUTHORIZATION).and_then(bearer);
                if given.is_some_and(|given| token.is(given.as_bytes())) {
                    return Ok(());
                }
                "it needs the token of this host, as Authorization: Bearer TOKEN"
            }
            Access::Nobody => {
                "nobody is let in while this host's admin-token-file holds a placeholder: put a token of your own there, \
                 and restart the host"
            }
        };
        Err(Refusal::new(StatusCode::UNAUTHORIZED, sentence))
    }

    /// Whether the Host header names this host. A foreign name that resolves here belongs to a foreign page (DNS
    /// rebinding). Addresses cannot be rebound.
    fn is_called(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|address| address.to_canonical())
        {
            Ok(address) => {
                address.is_loopback()
                    || address == self.address
                    || self.address.is_unspecified()
                    || self.hosts.contains(&name)
            }
            Err(_) => name == "localhost" || self.hosts.contains(&name),
        }
    }
}

/// Whether the path needs no token. Probes have none, and a browser loads the page before it has one. These paths
/// reveal nothing of the operator's.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/") || path.starts_with("/assets/")
}

fn is_meant(headers: &HeaderMap) -> bool {
    let media_type = text(headers, &header::CONTENT_TYPE).and_then(|value| value.split(';').next());
    media_type.is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"))
        || headers.get(MEANT).is_some_and(|value| value == "1")
}

/// Returns the value of a header that occurs exactly once.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Checks each request, and adds the security headers to each response.
pub(super) async fn stand_guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let is_page = !request.uri().path().starts_with("/api/");
    let mut response = match guard.judge(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, if is_page { "no-cache" } else { "no-store" }),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use outbound::secret_value::SecretValue;

    use super::*;

    fn guard(address: &str, hosts: &[&str], token: Option<&str>) -> Guard {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let access = token.map_or(Access::Everybody, |token| Access::Token(SecretValue::new(token.into()).unwrap()));
        Guard::new(address.parse().unwrap(), hosts, access)
    }

    fn judge(guard: &Guard, method: &Method, path: &str, headers: &[(&str, &str)]) -> u16 {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        guard.judge(method, path, &headers).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn it_answers_to_its_own_names_only() {
        for (address, hosts, host, expected) in [
            ("127.0.0.1:9471", &[][..], "127.0.0.1:9471", 200),
            ("127.0.0.1:9471", &[], "localhost", 200),
            ("127.0.0.1:9471", &[], "LocalHost:9471", 200),
            ("127.0.0.1:9471", &[], "[::1]:9471", 200),
            ("127.0.0.1:9471", &[], "127.0.0.1:1", 200),
            ("127.0.0.1:9471", &[], "evil.example:9471", 403),
            ("127.0.0.1:9471", &[], "127.0.0.1.evil.example", 403),
            ("127.0.0.1:9471", &[], "localhost.evil.example", 403),
            ("127.0.0.1:9471", &[], "10.0.0.7:9471", 403),
            ("127.0.0.1:9471", &[], "", 403),
            ("127.0.0.1:9471", &["ops.example"], "Ops.Example:443", 200),
            ("10.0.0.7:9471", &[], "10.0.0.7:9471", 200),
            ("10.0.0.7:9471", &[], "10.0.0.8:9471", 403),
            ("0.0.0.0:9471", &[], "10.0.0.8:9471", 200),
            ("0.0.0.0:9471", &[], "ops.example", 403),
            ("[::]:9471", &[], "[fd00::1]:9471", 200),
        ] {
            let guard = guard(address, hosts, None);
            assert_eq!(judge(&guard, &Method::GET, "/api/v1/host", &[("host", host)]), expected, "{address} {host}");
        }
        let guard = guard("127.0.0.1:1", &[], None);
        assert_eq!(judge(&guard, &Method::GET, "/", &[]), 400);
        assert_eq!(judge(&guard, &Method::GET, "/", &[("host", "localhost"), ("host", "localhost")]), 400);
    }

    #[test]
    fn a_page_of_somebody_else_may_not_ask() {
        let guard = guard("127.0.0.1:9471", &["ops.example"], None);
        for (host, origin, expected) in [
            ("127.0.0.1:9471", "http://127.0.0.1:9471", 200),
            ("ops.example", "https://ops.example", 200),
            ("127.0.0.1:9471", "http://127.0.0.1:80", 403),
            ("127.0.0.1:9471", "http://localhost:9471", 403),
            ("127.0.0.1:9471", "https://evil.example", 403),
            ("127.0.0.1:9471", "null", 403),
            ("127.0.0.1:9471", "", 403),
        ] {
            let headers = [("host", host), ("origin", origin)];
            assert_eq!(judge(&guard, &Method::GET, "/api/v1/host", &headers), expected, "{origin}");
        }
    }

    #[test]
    fn where_there_is_a_token_it_is_asked_for() {
        let guard = guard("0.0.0.0:9471", &[], Some("correct horse battery"));
        for (path, authorization, expected) in [
            ("/api/v1/host", "Bearer correct horse battery", 200),
            ("/api/v1/host", "bearer correct horse battery", 200),
            ("/metrics", "", 401),
            ("/metrics", "Bearer ", 401),
            ("/metrics", "Bearer correct horse batterz", 401),
            ("/metrics", "Bearer correct horse batter", 401),
            ("/metrics", "Basic correct horse battery", 401),
            ("/api/v1/stats/stream", "correct horse battery", 401),
            ("/healthz", "", 200),
            ("/readyz", "", 200),
            ("/", "", 200),
            ("/assets/app.js", "", 200),
            ("/nothing", "", 401),
        ] {
            let headers = [("host", "10.0.0.1"), ("authorization", authorization)];
            assert_eq!(judge(&guard, &Method::GET, path, &headers), expected, "{path} {authorization}");
        }
    }

    #[test]
    fn a_placeholder_lets_nobody_in_but_probes() {
        let guard = Guard::new("0.0.0.0:9471".parse().unwrap(), Vec::new(), Access::Nobody);
        for (path, authorization, expected) in [
            ("/healthz", "", 200),
            ("/readyz", "", 200),
            ("/metrics", "", 401),
            ("/api/v1/host", "Bearer CHANGE-ME", 401),
            ("/api/v1/host", "Bearer ", 401),
        ] {
            let headers = [("host", "10.0.0.1"), ("authorization", authorization)];
            assert_eq!(judge(&guard, &Method::GET, path, &headers), expected, "{path} {authorization}");
        }
    }

    #[test]
    fn a_change_says_that_it_is_meant() {
        let guard = guard("127.0.0.1:9471", &[], None);
        for (name, value, expected) in [
            ("content-type", "application/json", 200),
            ("content-type", "Application/JSON; charset=utf-8", 200),
            ("x-notify-request", "1", 200),
            ("x-notify-request", "", 403),
            ("content-type", "text/plain", 403),
            ("content-type", "application/x-www-form-urlencoded", 403),
            ("x-other", "", 403),
        ] {
            for method in [Method::POST, Method::DELETE, Method::PUT] {
                let headers = [("host", "localhost"), (name, value)];
                assert_eq!(
                    judge(&guard, &method, "/api/v1/plugins/a/pause", &headers),
                    expected,
                    "{method} {name} {value}"
                );
            }
        }
    }
}
