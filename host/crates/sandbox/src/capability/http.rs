//! One HTTP exchange of a plugin, through the egress gate.

use std::time::Duration;

use contract::http::{HeaderValue as GuestValue, Host, Request, Response};
use contract::types::HostError;
use http::HeaderValue;
use outbound::egress::{self, Bounds, EgressError, Target, parse_value};
use telemetry::spans::Span;
use tokio::time::Instant;
use url::Url;

use crate::capability::HostState;
use crate::capability::host_services::result_of;
use crate::capability::placeholder;
use crate::capability::preview::Departure;

/// Time reserved for the plugin to answer, when an exchange uses up the time of the call. At most a tenth of the time
/// left.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(100);

impl Host for HostState {
    async fn send(&mut self, request: Request) -> Result<Response, HostError> {
        self.calls.count("http.send");
        let begun = Instant::now();
        let answer = self.exchange(request).await;
        self.has_waited(begun.elapsed());
        answer.map_err(|ExchangeError(error)| error)
    }
}

impl HostState {
    async fn exchange(&mut self, request: Request) -> Result<Response, ExchangeError> {
        let url = placeholder::Template::parse(&request.url)?;
        let target = if url.has_secrets() {
            Target::new(url.without_secrets()?)?
        } else {
            self.call.access.target(&request.url)?
        };
        let mut outgoing = egress::Request::to(&request.method, target, request.body)?;
        // Check before doing anything with a secret.
        self.call.access.check(&outgoing.url)?;
        let mut shown = Vec::new();
        for (name, value) in request.headers {
            if self.call.access.leaves_out(&name) {
                continue;
            }
            let Header { value, bytes, shown: text } = self.header_value(&name, value, &outgoing.url)?;
            if self.call.access.preview().is_some() {
                shown.push((name.clone(), text));
            }
            outgoing.counted_header(&name, value, bytes)?;
        }
        let dialled = self.with_secrets(&url, &outgoing.url).await?;
        let preview = self.call.access.preview().map(|preview| {
            let departure = Departure::Http {
                method: outgoing.method.to_string(),
                url: if url.has_secrets() { url.text().to_owned() } else { outgoing.url.to_string() },
                headers: shown,
                body: outgoing.body.to_vec(),
            };
            (preview, departure)
        });
        if let Some((preview, departure)) = preview.as_ref().filter(|(preview, _)| preview.is_dry) {
            preview.note(departure.clone());
            return Ok(Response { status: 200, headers: Vec::new(), body: Vec::new(), truncated: false });
        }
        let mut span = self.call.within.http(&outgoing.method, &outgoing.url);
        outgoing.url = dialled;
        let deadline = deadline(Instant::now(), self.call.deadline, request.timeout);
        let bounds = Bounds { deadline, body_bytes_max: self.limits.response_bytes };
        let response = self.call.access.send(outgoing, bounds).await;
        if let Some((preview, departure)) = preview.filter(|_| !matches!(response, Err(EgressError::Denied(_)))) {
            preview.note(departure);
        }
        ended(&mut span, &response);
        let response = response?;
        let secret_store = &self.call.access.secret_store;
        let header = |(name, value): (&http::HeaderName, &HeaderValue)| {
            (secret_store.redact(name.to_string()), secret_store.redact_bytes(value.as_bytes()).into_owned())
        };
        Ok(Response {
            status: response.status.as_u16(),
            headers: response.headers.iter().map(header).collect(),
            body: response.body.into(),
            truncated: response.is_truncated,
        })
    }

    /// Returns the URL to dial, if every secret in it may be sent to `shape`, the same URL without secrets.
    async fn with_secrets(&mut self, url: &placeholder::Template<'_>, shape: &Target) -> Result<Target, ExchangeError> {
        if !url.has_secrets() {
            return Ok(shape.clone());
        }
        let mut secrets = Vec::new();
        for name in url.names() {
            secrets.push(self.granted_secret(name).await?);
        }
        let values = secrets.iter().map(|secret| secret.value_in(shape));
        Ok(Target::new(url.with_secrets(&values.collect::<Result<Vec<_>, HostError>>()?)?)?)
    }

    fn header_value(&mut self, name: &str, value: GuestValue, url: &Url) -> Result<Header, ExchangeError> {
        match value {
            GuestValue::Text(text) => {
                let value = parse_value(name, text.as_bytes())?;
                Ok(Header { bytes: value.len(), value, shown: text })
            }
            GuestValue::Secret((prefix, secret)) => {
                let secret = self.secret(&secret)?;
                let value = secret.header_for(&prefix, url)?;
                Ok(Header { value, bytes: prefix.len(), shown: format!("{prefix}{}", secret.instead()) })
            }
        }
    }
}

/// The value of a header that a plugin sends.
struct Header {
    value: HeaderValue,
    /// Its length without the secrets in it.
    bytes: usize,
    /// The value with placeholders for secrets, for previews.
    shown: String,
}

/// Records the result of an exchange in its span, without any text from the server.
pub(super) fn ended(span: &mut Span, response: &Result<egress::Response, EgressError>) {
    match response {
        Ok(response) => span.answered(response.status),
        Err(error) => span.failed(result_of(error).as_str(), ""),
    }
}

/// Returns the deadline of an exchange that begins now.
pub(super) fn deadline(now: Instant, call: Instant, wanted_milliseconds: Option<u64>) -> Instant {
    let left = call.saturating_duration_since(now);
    let usable = left.saturating_sub((left / 10).min(ANSWER_TIME_MAX));
    now + wanted_milliseconds.map_or(usable, |wanted| Duration::from_millis(wanted).min(usable))
}

/// Why an exchange failed, as the guest sees it.
struct ExchangeError(HostError);

impl From<HostError> for ExchangeError {
    fn from(error: HostError) -> Self {
        Self(error)
    }
}

impl From<EgressError> for ExchangeError {
    fn from(error: EgressError) -> Self {
        Self(match error {
            EgressError::Denied(sentence) => HostError::Denied(sentence),
            EgressError::Invalid(sentence) => HostError::Invalid(sentence),
            EgressError::Quota(sentence) => HostError::Quota(sentence),
            EgressError::TimedOut { .. } => HostError::Timeout,
            error @ EgressError::Unavailable { .. } => HostError::Unavailable(error.to_string()),
            // The request had its effect, so a retry would only repeat that.
            error @ EgressError::UnusableBody { .. } => HostError::Refused(error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_leaves_the_plugin_time_to_answer() {
        let now = Instant::now();
        let check = |call: u64, wanted: Option<u64>, expected: u64| {
            let end = deadline(now, now + Duration::from_millis(call), wanted);
            assert_eq!(end - now, Duration::from_millis(expected), "{call} {wanted:?}");
        };
        check(10_000, None, 9_900);
        check(10_000, Some(500), 500);
        check(10_000, Some(u64::MAX), 9_900);
        check(100, None, 90);
        check(0, Some(1), 0);
    }
}
