//! Implements `wasi:http/outgoing-handler`, on which `fetch` in JavaScript and the HTTP clients of other languages
//! are built. It uses the same gate, bounds and deadline as the contract's own `http`.
//!
//! A request leaves once the guest has written all of it, and the guest sees the response once all of it has arrived.
//! Secrets cannot be sent this way, because the guest does not have them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use config::Limits;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use outbound::egress::{self, Bounds, EgressError, ExchangeStep, belongs_to_the_host, parse_value};
use telemetry::spans::Within;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi_http::{Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpHooks};

use crate::capability::CallContext;
use crate::capability::http::{deadline, ended};
use crate::capability::preview::Departure;
use crate::capability::secret_store::SecretStore;
use crate::capability::{PluginAccess, PluginLog};

/// Maximum number of concurrent exchanges of one call. Others wait.
const EXCHANGES_AT_ONCE_MAX: usize = 4;
/// Number of responses of the largest size that the host holds for one call until it reads them.
const ANSWERS_HELD_MAX: usize = 8;
/// Unit in bytes in which held responses are counted.
const HELD_UNIT: usize = 1 << 10;

type WasiResponse = http::Response<WasiBody>;
type Rest = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// The `wasi:http` state of one call.
pub struct WasiHttp {
    pub context: WasiHttpCtx,
    pub(crate) exchanges: Exchanges,
}

/// The exchanges of one call.
pub(crate) struct Exchanges {
    /// Number of exchanges begun.
    pub count: u64,
    shared: Arc<ExchangeContext>,
}

struct ExchangeContext {
    access: Arc<PluginAccess>,
    within: Within,
    deadline: Instant,
    log: PluginLog,
    request_bytes_max: usize,
    response_bytes_max: usize,
    permits: Semaphore,
    /// Room for responses that the guest has not read yet.
    room: Arc<Semaphore>,
}

impl WasiHttp {
    pub fn new(limits: &Limits, log: &PluginLog, call: &CallContext) -> Self {
        let room = ANSWERS_HELD_MAX * limits.response_bytes.div_ceil(HELD_UNIT);
        let shared = ExchangeContext {
            access: Arc::clone(&call.access),
            within: call.within.clone(),
            deadline: call.deadline,
            log: log.clone(),
            request_bytes_max: limits.host_call_bytes,
            response_bytes_max: limits.response_bytes,
            permits: Semaphore::new(EXCHANGES_AT_ONCE_MAX),
            room: Arc::new(Semaphore::new(room)),
        };
        Self { context: WasiHttpCtx::new(), exchanges: Exchanges { count: 0, shared: Arc::new(shared) } }
    }
}

impl WasiHttpHooks for Exchanges {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        // The guest's Content-Length is kept, to be compared with the body.
        Arc::new(|name| belongs_to_the_host(name) && *name != header::CONTENT_LENGTH)
    }

    fn set_host_header(&mut self) -> bool {
        // The gate sets it, from the URL that it checked.
        false
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _problem_of_the_response: Rest,
    ) -> Box<dyn Future<Output = Result<(WasiResponse, Rest), Error>> + Send> {
        self.count += 1;
        let shared = Arc::clone(&self.shared);
        Box::new(async move {
            match shared.exchange(request, options).await {
                Ok(answer) => Ok((answer, Box::new(async { Ok(()) }) as Rest)),
                Err(error) => {
                    // A guest sees only an error code, and `fetch` not even that, so log the reason.
                    shared.log.complain(&shared.access.secret_store.redact(error.to_string()));
                    Err(code_of(error))
                }
            }
        })
    }
}

impl ExchangeContext {
    async fn exchange(
        &self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<WasiResponse, EgressError> {
        let first_byte = options.and_then(|options| options.first_byte_timeout);
        let connect = options.and_then(|options| options.connect_timeout).unwrap_or_default();
        let wanted = first_byte.map(|time| u64::try_from((time + connect).as_millis()).unwrap_or(u64::MAX));
        let deadline = deadline(Instant::now(), self.deadline, wanted);
        let (head, body) = request.into_parts();
        let target = self.access.target(&head.uri.to_string())?;
        let mut outgoing = egress::Request::to(head.method.as_str(), target, Bytes::new())?;
        self.access.check(&outgoing.url)?;
        let length = length_of(&head.headers)?;
        let mut shown = Vec::new();
        let is_sent = |name: &HeaderName| *name != header::CONTENT_LENGTH && !self.access.leaves_out(name.as_str());
        for (name, value) in head.headers.iter().filter(|(name, _)| is_sent(name)) {
            outgoing.header(name.as_str(), parse_value(name.as_str(), value.as_bytes())?)?;
            if self.access.preview().is_some() {
                shown.push((name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
            }
        }
        let late = |step| EgressError::TimedOut { target: outgoing.url.origin().ascii_serialization(), step };
        let permit = timeout_at(deadline, self.permits.acquire()).await.map_err(|_| late(ExchangeStep::Waiting))?;
        let collected = timeout_at(deadline, collect(body, self.request_bytes_max));
        outgoing.body = collected.await.map_err(|_| late(ExchangeStep::Exchanging))??;
        if length.is_some_and(|length| length != outgoing.body.len()) {
            return Err(EgressError::Invalid("the body is of another length than its header says".to_owned()));
        }
        let preview = self.access.preview().map(|preview| {
            let departure = Departure::Http {
                method: outgoing.method.to_string(),
                url: outgoing.url.to_string(),
                headers: shown,
                body: outgoing.body.to_vec(),
            };
            (preview, departure)
        });
        if let Some((preview, departure)) = preview.as_ref().filter(|(preview, _)| preview.is_dry) {
            preview.note(departure.clone());
            return Ok(http::Response::new(
                http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync(),
            ));
        }
        let bounds = Bounds { deadline, body_bytes_max: self.response_bytes_max };
        let mut span = self.within.http(&outgoing.method, &outgoing.url);
        let response = self.access.send(outgoing, bounds).await;
        ended(&mut span, &response);
        drop(span);
        drop(permit);
        if let Some((preview, departure)) = preview.filter(|_| !matches!(response, Err(EgressError::Denied(_)))) {
            preview.note(departure);
        }
        self.answer(response?)
    }

    /// Builds the response for the guest. It takes room until the guest has read or dropped it.
    fn answer(&self, response: egress::Response) -> Result<WasiResponse, EgressError> {
        let body = response.body;
        let units = u32::try_from(body.len().div_ceil(HELD_UNIT)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(units).map_err(|_| {
            EgressError::Quota(format!(
                "answers that nobody has read lie in the host, and there is room for {ANSWERS_HELD_MAX} of the largest: \
                 read one before you ask for the next"
            ))
        })?;
        let more = response.is_truncated.then_some(Error::HttpResponseBodySize(Some(self.response_bytes_max as u64)));
        let frames = [Ok(Frame::data(body))].into_iter().chain(more.map(Err));
        // The permit lives in the body's stream and is released when the guest has read or dropped it.
        let frames = frames.inspect(move |_| {
            let _held = &room;
        });
        let mut answer = http::Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
        *answer.status_mut() = response.status;
        *answer.headers_mut() = without_secrets(&self.access.secret_store, &response.headers);
        Ok(answer)
    }
}

fn length_of(headers: &HeaderMap) -> Result<Option<usize>, EgressError> {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let length = length.to_str().ok().and_then(|length| length.parse().ok());
    length.map(Some).ok_or_else(|| EgressError::Invalid("the header content-length holds no length".to_owned()))
}

async fn collect(mut body: WasiBody, bytes_max: usize) -> Result<Bytes, EgressError> {
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| EgressError::Invalid(format!("the body of the request ended early: {error}")))?;
        // Trailers are dropped.
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > bytes_max {
            return Err(EgressError::Quota(format!("the body of the request has more than {} KiB", bytes_max >> 10)));
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

/// Removes secrets from headers: the receiver of a secret may send it back, and the plugin must not see it.
fn without_secrets(secret_store: &SecretStore, headers: &HeaderMap) -> HeaderMap {
    let clean = |(name, value): (&HeaderName, &HeaderValue)| {
        let is_clean = secret_store.redact(name.to_string()) == name.as_str();
        let value = HeaderValue::from_bytes(&secret_store.redact_bytes(value.as_bytes())).ok()?;
        is_clean.then(|| (name.clone(), value))
    };
    let mut cleaned = HeaderMap::new();
    for (name, value) in headers.iter().filter_map(clean) {
        cleaned.append(name, value);
    }
    cleaned
}

/// Maps an error to the nearest code of WASI.
fn code_of(error: EgressError) -> Error {
    match error {
        EgressError::Denied(_) => Error::HttpRequestDenied,
        EgressError::Invalid(_) => Error::HttpRequestUriInvalid,
        EgressError::Quota(sentence) => Error::InternalError(Some(sentence)),
        EgressError::TimedOut { step, .. } => match step {
            ExchangeStep::Waiting => Error::ConnectionLimitReached,
            ExchangeStep::Resolving => Error::DnsTimeout,
            ExchangeStep::Connecting | ExchangeStep::Securing => Error::ConnectionTimeout,
            ExchangeStep::Exchanging => Error::HttpResponseTimeout,
        },
        EgressError::UnusableBody { .. } => Error::HttpResponseContentCoding(None),
        EgressError::Unavailable { step, .. } => match step {
            ExchangeStep::Waiting => Error::ConnectionLimitReached,
            ExchangeStep::Resolving => Error::DnsError { rcode: None, info_code: None },
            ExchangeStep::Connecting => Error::ConnectionRefused,
            ExchangeStep::Securing => Error::TlsProtocolError,
            ExchangeStep::Exchanging => Error::ConnectionTerminated,
        },
    }
}
