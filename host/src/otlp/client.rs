//! The exporter's HTTP client. It uses a gate of its own that leads only to the collector, with the same TLS settings
//! and bounds as all outgoing requests.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use config::{Network, Origin, SecretSource};
use http::{HeaderName, HeaderValue, Response};
use opentelemetry_http::{HttpClient, HttpError};
use outbound::egress::{Bounds, Egress, Gate, Request};
use outbound::secret_value::SecretValue;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::otlp::watch::Watch;

/// Time limit of one request. The exporter may make several for a batch.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum bytes of a response; collectors answer briefly.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Networks that the collector may be in: all, because the operator named it.
const ANYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

pub(super) struct Client {
    gate: Arc<Gate>,
    /// The operator's headers, with secret values.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The runtime for requests; the exporter's thread has none.
    runtime: Handle,
    watch: Arc<Watch>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(
        url: &Url,
        headers: &[(String, SecretSource)],
        egress: Egress,
        watch: Arc<Watch>,
    ) -> anyhow::Result<Self> {
        let origin = Origin::of_url(url).context("the collector's URL is neither http nor https")?;
        let networks = ANYWHERE.iter().filter_map(|network| network.parse::<Network>().ok()).collect();
        let header = |(name, source): &(String, SecretSource)| {
            let value = || -> Result<_, String> {
                let value = SecretValue::read(source)?.header("")?;
                Ok((name.parse().map_err(|_| "its name is none of a header")?, value))
            };
            value().map_err(|problem| anyhow!("tracing.headers.{name}: cannot use {source}: {problem}"))
        };
        Ok(Self {
            gate: Arc::new(Gate::new(egress, vec![origin], networks)),
            headers: headers.iter().map(header).collect::<anyhow::Result<_>>()?,
            runtime: Handle::current(),
            watch,
        })
    }

    fn prepare(&self, request: http::Request<Bytes>) -> Result<Request, HttpError> {
        let (head, body) = request.into_parts();
        let mut prepared = Request::new(head.method.as_str(), &head.uri.to_string(), body)?;
        let own = head.headers.iter().filter(|(name, _)| !self.headers.iter().any(|(set, _)| set == *name));
        for (name, value) in own.chain(self.headers.iter().map(|(name, value)| (name, value))) {
            prepared.header(name.as_str(), value.clone())?;
        }
        Ok(prepared)
    }

    async fn send(&self, request: http::Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = self.prepare(request)?;
        let gate = Arc::clone(&self.gate);
        let exchange = self.runtime.spawn(async move {
            let deadline = Instant::now() + REQUEST_TIMEOUT;
            gate.send(request, Bounds { deadline, body_bytes_max: ANSWER_BYTES_MAX }).await
        });
        let answer = AbortOnDropHandle::new(exchange).await??;
        if !answer.status.is_success() {
            self.watch.says(format!("it answers with status {}", answer.status.as_u16()));
        }
        let mut response = Response::new(answer.body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

impl HttpClient for Client {
    fn send_bytes<'client, 'exchange>(
        &'client self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'exchange>>
    where
        'client: 'exchange,
        Self: 'exchange,
    {
        Box::pin(async move {
            let answer = self.send(request).await;
            if let Err(error) = &answer {
                // The exporter's own error does not say what the problem is.
                self.watch.says(error.to_string());
            }
            answer
        })
    }
}
