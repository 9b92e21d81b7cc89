//! The gate of one version of a plugin: the destinations it may reach, and its connections to them.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use config::{Network, Origin};
use http::{HeaderMap, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use url::{Host, Url};

use crate::egress::Egress;
use crate::egress::address::Block;
use crate::egress::body::{Body, BoundedBody};
use crate::egress::connection::{Connection, ConnectionError, Head};
use crate::egress::dial::{self, Stream};
use crate::egress::failure::{EgressError, ExchangeStep};
use crate::egress::pool::{IDLE_TIME_MAX, Pool};
use crate::egress::request::Request;
use crate::egress::resolver::Lookups;
use crate::egress::target::{Target, Targets};

/// Maximum number of concurrent exchanges of one plugin. Others wait, within their time limits.
const EXCHANGES_AT_ONCE_MAX: usize = 64;

/// The destinations that one plugin may reach. The default allows none.
#[derive(Debug)]
pub struct Gate {
    egress: Egress,
    origins: Vec<Origin>,
    networks: Vec<Network>,
    pool: Pool,
    permits: Semaphore,
    lookups: Lookups,
    targets: Targets,
}

/// Limits of one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The exchange must have ended by then.
    pub deadline: Instant,
    /// Maximum bytes of the response's body; the rest is cut off.
    pub body_bytes_max: usize,
}

/// A response: its head and its body.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body was longer than the limit.
    pub is_truncated: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(Egress::default(), Vec::new(), Vec::new())
    }
}

impl Gate {
    pub fn new(egress: Egress, origins: Vec<Origin>, networks: Vec<Network>) -> Self {
        let permits = Semaphore::new(EXCHANGES_AT_ONCE_MAX);
        Self {
            egress,
            origins,
            networks,
            pool: Pool::new(IDLE_TIME_MAX),
            permits,
            lookups: Lookups::default(),
            targets: Targets::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn keep_idle_for(&mut self, time: std::time::Duration) {
        self.pool = Pool::new(time);
    }

    #[cfg(test)]
    pub(super) fn idle_connections(&self) -> usize {
        self.pool.len()
    }

    /// Parses a URL into a target.
    pub fn target(&self, url: &str) -> Result<Target, EgressError> {
        self.targets.parse(url)
    }

    /// Checks whether a request to this URL may leave, as far as the URL alone tells.
    pub fn check(&self, url: &Target) -> Result<(), EgressError> {
        let target = url.origin();
        if !self.origins.iter().any(|origin| origin.covers(target)) {
            return Err(EgressError::Denied(format!(
                "this plugin has no grant for {target}: its operator adds [grants] http = [\"{target}\"]"
            )));
        }
        match address_of(url) {
            Some(address) => self.admitted(target, &[address]).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Sends a request and returns the response.
    pub async fn send(&self, request: Request, bounds: Bounds) -> Result<Response, EgressError> {
        let mut body = BoundedBody::new(bounds.body_bytes_max);
        let Head { status, headers, is_truncated } = self.exchange(request, bounds.deadline, &mut body).await?;
        Ok(Response { status, headers, body: body.into_bytes(), is_truncated })
    }

    /// Sends a request and passes the response's body to `body`.
    pub async fn exchange(
        &self,
        request: Request,
        deadline: Instant,
        body: &mut dyn Body,
    ) -> Result<Head, EgressError> {
        self.check(&request.url)?;
        let url = request.url.clone();
        let request = request.into_http();
        let _permit = self.permit(url.origin(), deadline).await?;
        let answer = self.exchange_admitted(&url, request, deadline, body).await;
        if let Err(error) = &answer {
            debug!("{error}");
        }
        answer
    }

    async fn exchange_admitted(
        &self,
        url: &Target,
        mut request: http::Request<http_body_util::Full<Bytes>>,
        deadline: Instant,
        body: &mut dyn Body,
    ) -> Result<Head, EgressError> {
        let origin = url.origin();
        loop {
            let kept = self.pool.take(origin).await;
            let is_fresh = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect(url, origin, deadline).await?,
            };
            let exchange = connection.exchange(request, body);
            let problem = match within(deadline, origin, ExchangeStep::Exchanging, exchange).await? {
                Ok(response) => {
                    if response.status == StatusCode::SWITCHING_PROTOCOLS {
                        let problem = "it switches to a protocol that nobody asked for".to_owned();
                        return Err(unavailable(origin, ExchangeStep::Exchanging, problem));
                    }
                    if !response.is_truncated && connection.is_idle().await {
                        self.pool.put(Arc::clone(origin), connection);
                    }
                    return Ok(response);
                }
                // The server closed the connection while it was idle, so nothing was sent.
                Err(ConnectionError::Unsent(unsent)) if !is_fresh => {
                    request = *unsent;
                    continue;
                }
                Err(ConnectionError::Unsent(_)) => "it closed the connection at once".to_owned(),
                Err(ConnectionError::UnusableBody(problem)) => {
                    return Err(EgressError::UnusableBody { target: origin.to_string(), problem });
                }
                // Nobody knows whether the request arrived, so whether to repeat it is the plugin's decision.
                Err(ConnectionError::Failed(error)) => told(&error),
            };
            return Err(unavailable(origin, ExchangeStep::Exchanging, problem));
        }
    }

    async fn permit(&self, origin: &Origin, deadline: Instant) -> Result<SemaphorePermit<'_>, EgressError> {
        let permit = within(deadline, origin, ExchangeStep::Waiting, self.permits.acquire()).await?;
        permit.map_err(|_| unavailable(origin, ExchangeStep::Waiting, "the host is stopping".to_owned()))
    }

    /// Opens a connection to an address that was checked here.
    async fn connect(&self, url: &Url, origin: &Origin, deadline: Instant) -> Result<Connection, EgressError> {
        let fail = |step, problem: String| unavailable(origin, step, problem);
        let addresses = match (address_of(url), url.host()) {
            (Some(address), _) => vec![address],
            (None, Some(Host::Domain(name))) => {
                let lookup = self.egress.resolver.resolve(name, &self.lookups);
                let answers = within(deadline, origin, ExchangeStep::Resolving, lookup).await?;
                answers.map_err(|error| fail(ExchangeStep::Resolving, format!("its name does not resolve: {error}")))?
            }
            (None, _) => Vec::new(),
        };
        if addresses.is_empty() {
            return Err(fail(ExchangeStep::Resolving, "its name has no address".to_owned()));
        }
        let addresses = self.admitted(origin, &addresses)?;
        let port = url.port_or_known_default().unwrap_or_default();
        let dialled = dial::connect(&addresses, port, deadline);
        let stream = within(deadline, origin, ExchangeStep::Connecting, dialled).await?;
        let socket = stream.map_err(|error| fail(ExchangeStep::Connecting, format!("cannot connect: {error}")))?;
        let stream: Stream = match url.host() {
            Some(host) if url.scheme() == "https" => {
                let insecure =
                    |problem: String| fail(ExchangeStep::Securing, format!("no secure connection: {problem}"));
                let client = within(deadline, origin, ExchangeStep::Securing, self.egress.trust.client()).await?;
                let secured = dial::secure(socket.clone(), &host, client.map_err(insecure)?);
                let stream = within(deadline, origin, ExchangeStep::Securing, secured).await?;
                stream.map_err(|error| insecure(error.to_string()))?
            }
            _ => Box::new(socket.clone()),
        };
        let connection = within(deadline, origin, ExchangeStep::Exchanging, Connection::new(socket, stream)).await?;
        connection.map_err(|error| fail(ExchangeStep::Exchanging, told(&error)))
    }

    /// Returns the addresses that may be dialled, at least one.
    fn admitted(&self, origin: &Origin, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, EgressError> {
        dial::admitted(addresses, &self.networks).map_err(|refusal| match refusal {
            Some((address, Block { network, what })) => EgressError::Denied(format!(
                "{origin} leads to {address}, {what}, which is refused unless the operator grants it besides, by [grants] \
                 networks = [\"{network}\"]"
            )),
            None => EgressError::Denied(format!("{origin} leads to no address")),
        })
    }
}

/// Returns the address if the URL names one instead of a host name.
fn address_of(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

async fn within<T>(
    deadline: Instant,
    origin: &Origin,
    step: ExchangeStep,
    what: impl Future<Output = T>,
) -> Result<T, EgressError> {
    let late = |_| EgressError::TimedOut { target: origin.to_string(), step };
    timeout_at(deadline, what).await.map_err(late)
}

fn unavailable(origin: &Origin, step: ExchangeStep, problem: String) -> EgressError {
    EgressError::Unavailable { target: origin.to_string(), step, problem }
}

/// Describes why an exchange failed, as a fragment.
fn told(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        return "the head of its answer is too large".to_owned();
    }
    if error.is_parse() {
        return "its answer is no HTTP".to_owned();
    }
    if error.is_incomplete_message() {
        return "it closed the connection before its answer was complete".to_owned();
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                return "it closed the connection before its answer was complete".to_owned();
            }
            return format!("the connection broke: {error}");
        }
        cause = error.source();
    }
    format!("the exchange failed: {error}")
}
