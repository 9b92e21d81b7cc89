//! One span, from its start until it is dropped.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use event::trace_context::{self, PARENT, STATE};
use http::{Method, StatusCode};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span as Recorded};
use url::Url;

use crate::spans::{cut, number, text};

/// HTTP methods with names of their own in traces (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>).
const METHODS_KNOWN: [Method; 8] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::OPTIONS,
    Method::PATCH,
    Method::TRACE,
];

/// A span that ends when it is dropped. The default is no span and costs nothing.
#[derive(Default)]
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<Box<OpenSpan>>);

struct OpenSpan {
    recorded: Recorded,
    /// The parent of whatever this span causes: the span itself, or its own cause if this one is not recorded.
    cause: SpanContext,
    tracer: SdkTracer,
    has_finished: bool,
}

/// The parent for calls out of an attempt. The default is none.
#[derive(Clone, Default)]
pub struct Within(Option<Arc<(SdkTracer, SpanContext)>>);

impl fmt::Debug for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Within").field(&self.0.as_ref().map(|within| trace_context::to_parent(&within.1))).finish()
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // An unfinished span was cut off, by a time limit or by the end of the host.
        if self.0.as_ref().is_some_and(|open| !open.has_finished) {
            self.failed("cut-off", "");
        }
    }
}

impl Span {
    /// Starts a span. [`Self::describe`] adds details if the span is recorded.
    pub(super) fn start(
        tracer: &SdkTracer,
        kind: SpanKind,
        name: &'static str,
        cause: Option<&SpanContext>,
        since: Option<SystemTime>,
    ) -> Self {
        let context = Context::new();
        let context = cause.map_or(context.clone(), |cause| context.with_remote_span_context(cause.clone()));
        let builder = SpanBuilder { start_time: since, ..SpanBuilder::from_name(name).with_kind(kind) };
        let recorded = tracer.build_with_context(builder, &context);
        let seen = recorded.is_recording().then(|| recorded.span_context().clone());
        let cause = seen.or_else(|| cause.cloned()).unwrap_or_else(|| recorded.span_context().clone());
        Self(Some(Box::new(OpenSpan { recorded, cause, tracer: tracer.clone(), has_finished: false })))
    }

    /// Sets the full name and the attributes, if the span is recorded.
    pub(super) fn describe(&mut self, what: impl FnOnce() -> (String, Vec<KeyValue>)) {
        if let Some(recorded) = self.recorded() {
            let (name, attributes) = what();
            recorded.update_name(name);
            recorded.set_attributes(attributes);
        }
    }

    fn recorded(&mut self) -> Option<&mut Recorded> {
        self.0.as_mut().map(|open| &mut open.recorded).filter(|recorded| recorded.is_recording())
    }

    /// Returns the `traceparent` for whatever this span causes, or `None` without tracing.
    pub fn as_cause(&self) -> Option<String> {
        self.0.as_ref().map(|open| trace_context::to_parent(&open.cause))
    }

    pub fn within(&self) -> Within {
        Within(self.0.as_ref().map(|open| Arc::new((open.tracer.clone(), open.cause.clone()))))
    }

    /// Adds an attribute that became known later.
    pub fn note(&mut self, name: &'static str, value: &str) {
        if let Some(recorded) = self.recorded() {
            recorded.set_attribute(text(name, value));
        }
    }

    /// Marks the span as successful.
    pub fn done(&mut self) {
        if let Some(open) = &mut self.0 {
            open.has_finished = true;
        }
    }

    /// Marks the span as failed. `kind` is a word of ours, or a plugin's own code.
    pub fn failed(&mut self, kind: &str, reason: &str) {
        self.done();
        if let Some(recorded) = self.recorded() {
            recorded.set_attribute(text("error.type", kind));
            recorded.set_status(Status::error(cut(reason).to_owned()));
        }
    }

    /// Records the response to a request.
    pub fn answered(&mut self, status: StatusCode) {
        self.done();
        if let Some(recorded) = self.recorded() {
            recorded.set_attribute(number("http.response.status_code", status.as_u16()));
            if status.is_client_error() || status.is_server_error() {
                recorded.set_attribute(text("error.type", status.as_str()));
                recorded.set_status(Status::error(""));
            }
        }
    }
}

impl Within {
    /// Returns whether there is a span to be a child of.
    pub fn is_somewhere(&self) -> bool {
        self.0.is_some()
    }

    /// Writes this cause into the event's extensions, so that whoever sees the event next finds it.
    pub fn mark(&self, extensions: &mut Vec<(String, String)>) {
        let Some(within) = &self.0 else { return };
        extensions.retain(|(name, _)| name != PARENT && name != STATE);
        extensions.push((PARENT.to_owned(), trace_context::to_parent(&within.1)));
        extensions.extend(trace_context::to_state(&within.1).map(|state| (STATE.to_owned(), state)));
    }

    /// Starts a span for a request to this URL. It names only the origin, because the rest may be secret.
    pub fn http(&self, method: &Method, url: &Url) -> Span {
        self.call("http", || {
            let host = url.host_str().unwrap_or_default();
            let known = METHODS_KNOWN.contains(method).then_some(method.as_str());
            let mut attributes = vec![
                text("http.request.method", known.unwrap_or("_OTHER")),
                text("server.address", host),
                text("url.scheme", url.scheme()),
            ];
            attributes.extend(url.port_or_known_default().map(|port| number("server.port", port)));
            (format!("{} {host}", known.unwrap_or("HTTP")), attributes)
        })
    }

    /// Starts a span for a mail that is handed to the SMTP relay.
    pub fn mail(&self, relay: &str, port: u16, recipients: usize) -> Span {
        self.call("mail", || {
            let attributes = vec![
                text("server.address", relay),
                number("server.port", port),
                text("network.protocol.name", "smtp"),
                number("notify.mail.recipients", recipients),
            ];
            (format!("mail {relay}"), attributes)
        })
    }

    fn call(&self, name: &'static str, what: impl FnOnce() -> (String, Vec<KeyValue>)) -> Span {
        let Some(within) = &self.0 else { return Span::default() };
        let mut span = Span::start(&within.0, SpanKind::Client, name, Some(&within.1), None);
        span.describe(what);
        span
    }
}
