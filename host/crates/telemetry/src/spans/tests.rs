use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::Message;
use contract::types;
use http::{Method, StatusCode};
use opentelemetry::trace::{SpanKind, Status, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Collects the spans that end.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Kept {
    fn spans(&self, sample_ratio: f64) -> Spans {
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio)));
        let provider = SdkTracerProvider::builder().with_simple_exporter(self.clone()).with_sampler(sampler).build();
        Spans::by(provider.tracer("test"))
    }

    fn take(&self) -> Vec<SpanData> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == name).map(|found| found.value.to_string())
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-b7ad6b7169203331-{flags}")
}

fn message(headers: &[(&str, &str)]) -> Message {
    let mut message = Message::json("{}");
    message.properties.headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    message
}

fn event(extensions: &[(&str, &str)]) -> Event {
    let extensions = extensions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let attributes = types::Event {
        id: "1".to_owned(),
        source: "shop".to_owned(),
        event_type: "order.created".to_owned(),
        subject: None,
        time: None,
        data: "{}".to_owned(),
        extensions,
    };
    Event::new(attributes, true)
}

fn receive(spans: &Spans, message: &Message, event: &Event) -> Span {
    let (queue, routing_key) = ("notifications", "order.created");
    spans.receive(Taken { system: "sqlite", queue, routing_key, message, event: Some(event), since: spans.now() })
}

fn attempt(spans: &Spans, message: &Message, event: &Event, cause: Option<&str>) -> Span {
    spans.attempt(Begun { plugin: "webhook", number: 2, max: 8, message, event, cause })
}

fn seen(span: &Span) -> Vec<(String, String)> {
    let mut extensions = vec![("other".to_owned(), "1".to_owned()), (STATE.to_owned(), "of another".to_owned())];
    span.within().mark(&mut extensions);
    extensions
}

#[test]
fn each_span_hangs_below_its_cause() {
    let kept = Kept::default();
    let spans = kept.spans(1.0);
    let event = event(&[(PARENT, &parent("01")), (STATE, "a=1")]);
    let mut received = receive(&spans, &message(&[]), &event);
    let mut tried = attempt(&spans, &message(&[]), &event, received.as_cause().as_deref());
    let url = "https://me.example.com/secret?token=secret".parse().unwrap();
    tried.within().http(&Method::POST, &url).answered(StatusCode::NO_CONTENT);
    tried.within().mail("relay", 587, 2).failed("refused", "");
    let seen = seen(&tried);
    tried.failed("retry", "it is busy");
    received.done();
    drop((tried, received));
    let ended = kept.take();
    let names: Vec<_> = ended.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["POST me.example.com", "mail relay", "attempt webhook", "receive notifications"]);
    let [request, mail, attempt, receive] = &ended[..] else { panic!() };
    let id = |span: &SpanData| span.span_context.span_id();
    assert!(ended.iter().all(|span| span.span_context.trace_id().to_string() == TRACE));
    assert!(ended.iter().all(|span| span.span_context.trace_state().header() == "a=1"));
    assert_eq!(receive.parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(attempt.parent_span_id, id(receive));
    assert_eq!([request.parent_span_id, mail.parent_span_id], [id(attempt); 2]);
    assert_eq!((&receive.span_kind, &attempt.span_kind), (&SpanKind::Consumer, &SpanKind::Internal));
    assert_eq!((&request.span_kind, &mail.span_kind), (&SpanKind::Client, &SpanKind::Client));
    assert_eq!(attribute(receive, "messaging.message.id").as_deref(), Some("1"));
    assert_eq!(attribute(attempt, "notify.plugin").as_deref(), Some("webhook"));
    assert_eq!(attribute(attempt, "notify.attempt").as_deref(), Some("2"));
    assert_eq!(attempt.status, Status::error("it is busy"));
    assert_eq!((&receive.status, &request.status), (&Status::Unset, &Status::Unset));
    assert_eq!(attribute(request, "http.response.status_code").as_deref(), Some("204"));
    assert_eq!(attribute(request, "server.port").as_deref(), Some("443"));
    assert_eq!(attribute(mail, "error.type").as_deref(), Some("refused"));
    assert!(!format!("{request:?}").contains("secret"), "only the origin is told: {request:?}");
    // The trace context that the plugin sees points to its own attempt.
    let context = trace_context::to_parent(&attempt.span_context);
    assert_eq!(seen, [("other", "1"), (PARENT, &context), (STATE, "a=1")].map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn the_nearest_cause_counts() {
    let kept = Kept::default();
    let spans = kept.spans(1.0);
    let (near, far) = (parent("01").replace("b7", "aa"), parent("01"));
    let told = near.replace("aaad", "bbbb");
    let check = |headers: &[(&str, &str)], extensions: &[(&str, &str)], cause: Option<&str>, expected: Option<&str>| {
        drop(attempt(&spans, &message(headers), &event(extensions), cause));
        let parent = kept.take()[0].parent_span_id.to_string();
        assert_eq!(parent, expected.map_or("0000000000000000", |expected| &expected[36..52]));
    };
    check(&[(PARENT, &near)], &[(PARENT, &far)], Some(&told), Some(&told));
    check(&[(PARENT, &near)], &[(PARENT, &far)], None, Some(&near));
    check(&[], &[(PARENT, &far)], None, Some(&far));
    check(&[(PARENT, "00-ab")], &[(PARENT, &far)], None, Some(&far));
    check(&[(PARENT, "00-ab")], &[(PARENT, "00-ab")], None, None);
    check(&[], &[], Some("00-ab"), None);
}

#[test]
fn a_trace_that_begins_here_is_kept_by_the_ratio_and_another_as_its_publisher_says() {
    for (ratio, publisher, kept_count) in
        [(1.0, None, 2), (0.0, None, 0), (0.0, Some("01"), 2), (1.0, Some("00"), 0), (1.0, Some("01"), 2)]
    {
        let kept = Kept::default();
        let spans = kept.spans(ratio);
        let parent = publisher.map(parent);
        let event = event(&parent.iter().map(|parent| (PARENT, parent.as_str())).collect::<Vec<_>>());
        let received = receive(&spans, &message(&[]), &event);
        let cause = received.as_cause().unwrap();
        let tried = attempt(&spans, &message(&[]), &event, Some(&cause));
        let seen = seen(&tried).into_iter().find(|(name, _)| name == PARENT).unwrap().1;
        drop((tried, received));
        assert_eq!(kept.take().len(), kept_count, "{ratio} {publisher:?}");
        assert!(trace_context::is_parent(&cause) && cause[..36] == seen[..36], "{cause} {seen}");
        match (kept_count, parent) {
            // A child of a span that is not recorded would have a parent that nobody can find.
            (0, Some(parent)) => assert_eq!([&cause, &seen], [&parent; 2]),
            (0, None) => assert!(seen.ends_with("-00") && seen == cause, "{seen}"),
            _ => assert!(seen.ends_with("-01") && seen != cause, "{seen}"),
        }
    }
}

#[test]
fn what_is_cut_off_says_so() {
    let kept = Kept::default();
    let spans = kept.spans(1.0);
    drop(attempt(&spans, &message(&[]), &event(&[]), None));
    assert_eq!(attribute(&kept.take()[0], "error.type").as_deref(), Some("cut-off"));
}

#[test]
fn what_somebody_else_wrote_is_bounded() {
    let kept = Kept::default();
    let spans = kept.spans(1.0);
    let mut event = event(&[]);
    event.attributes_mut().id = "ü".repeat(5000);
    let mut tried = attempt(&spans, &message(&[]), &event, None);
    tried.failed(&"x".repeat(5000), &"y".repeat(5000));
    drop(tried);
    let span = &kept.take()[0];
    assert_eq!(attribute(span, "cloudevents.event_id").unwrap().len(), TEXT_BYTES_MAX);
    assert_eq!(attribute(span, "error.type").unwrap().len(), TEXT_BYTES_MAX);
    assert_eq!(span.status, Status::error("y".repeat(TEXT_BYTES_MAX)));
}

#[test]
fn a_span_lasts_from_its_beginning_to_its_end() {
    let kept = Kept::default();
    let spans = kept.spans(1.0);
    let since = spans.now().and_then(|now| now.checked_sub(Duration::from_secs(5)));
    let (event, message) = (event(&[]), message(&[]));
    let taken = Taken { system: "sqlite", queue: "q", routing_key: "", message: &message, event: Some(&event), since };
    spans.receive(taken).done();
    let span = &kept.take()[0];
    assert_eq!(Some(span.start_time), since);
    assert!(span.end_time.duration_since(span.start_time).unwrap() >= Duration::from_secs(5));
}

#[test]
fn where_none_are_wanted_nothing_is_made_and_nothing_is_changed() {
    let spans = Spans::default();
    let event = event(&[(PARENT, &parent("01"))]);
    let (received, tried) = (receive(&spans, &message(&[]), &event), attempt(&spans, &message(&[]), &event, None));
    assert_eq!((spans.now(), received.as_cause(), tried.as_cause()), (None, None, None));
    let before = event.extensions.clone();
    let mut after = before.clone();
    tried.within().mark(&mut after);
    assert_eq!(after, before);
    tried.within().http(&Method::GET, &"http://x".parse().unwrap()).answered(StatusCode::OK);
}
