//! Counts exported and lost spans, and logs once when they do not arrive.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter as Exporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use telemetry::metrics::HostMetrics;
use tracing::{info, warn};
use url::{Position, Url};

/// State of the export, for the log and the shutdown.
#[derive(Debug)]
pub(super) struct Watch {
    /// The collector's URL without its query, for messages.
    url: String,
    queued_max: usize,
    /// Number of spans in the queue.
    queued: AtomicUsize,
    /// Number of spans in the batch being sent.
    under_way: AtomicUsize,
    metrics: Arc<HostMetrics>,
    is_away: AtomicBool,
    has_overflown: AtomicBool,
    /// Error of the last request.
    problem: Mutex<Option<String>>,
}

impl Watch {
    pub(super) fn new(url: &Url, queued_max: usize, metrics: Arc<HostMetrics>) -> Self {
        Self {
            // The query may contain a key.
            url: url[..Position::AfterPath].to_owned(),
            queued_max,
            queued: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            metrics,
            is_away: AtomicBool::new(false),
            has_overflown: AtomicBool::new(false),
            problem: Mutex::default(),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the number of spans that have not arrived. After the end of the export this is the number of lost spans.
    pub(super) fn lost(&self) -> u64 {
        let waiting = self.queued.load(Ordering::Relaxed) + self.under_way.load(Ordering::Relaxed);
        self.metrics.spans_dropped.get() + waiting as u64
    }

    /// Records a request's error, a sentence fragment.
    pub(super) fn says(&self, problem: String) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }

    /// Counts a span into the queue. Returns false if the queue is full.
    fn enters(&self) -> bool {
        if self.queued.fetch_add(1, Ordering::Relaxed) < self.queued_max {
            return true;
        }
        self.queued.fetch_sub(1, Ordering::Relaxed);
        self.metrics.spans_dropped.one_more();
        // While the collector is away, that has been logged already.
        if !self.is_away.load(Ordering::Relaxed) && !self.has_overflown.swap(true, Ordering::Relaxed) {
            let (url, max) = (&self.url, self.queued_max);
            warn!("more spans are made than the collector at {url} takes: beyond {max} that wait they are dropped");
        }
        false
    }

    fn leaves(&self, count: usize) {
        self.queued.fetch_sub(count, Ordering::Relaxed);
        self.under_way.fetch_add(count, Ordering::Relaxed);
    }

    fn ended(&self, count: usize, result: &OTelSdkResult) {
        self.under_way.fetch_sub(count, Ordering::Relaxed);
        let (url, problem) = (&self.url, self.problem.lock().unwrap_or_else(PoisonError::into_inner).take());
        match result {
            Ok(()) => {
                if self.is_away.swap(false, Ordering::Relaxed) {
                    let dropped = self.metrics.spans_dropped.get();
                    info!(dropped, "the collector at {url} takes spans again");
                }
            }
            Err(error) => {
                self.metrics.spans_dropped.add(count as u64);
                if !self.is_away.swap(true, Ordering::Relaxed) {
                    let problem = problem.unwrap_or_else(|| error.to_string());
                    warn!("spans do not reach the collector at {url}, and are dropped until they do: {problem}");
                }
            }
        }
    }
}

/// The exporter, with its results counted.
#[derive(Debug)]
pub(super) struct WatchedExporter {
    pub(super) exporter: Exporter,
    pub(super) watch: Arc<Watch>,
}

impl SpanExporter for WatchedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.watch.leaves(count);
        let result = self.exporter.export(batch).await;
        self.watch.ended(count, &result);
        result
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The SDK's queue with a count of its content. The SDK does not tell what it drops.
#[derive(Debug)]
pub(super) struct CountedProcessor {
    pub(super) batches: BatchSpanProcessor,
    pub(super) watch: Arc<Watch>,
}

impl SpanProcessor for CountedProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.watch.enters() {
            self.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;

    #[test]
    fn what_finds_no_room_and_what_is_not_taken_is_counted() {
        let metrics = Arc::new(HostMetrics::default());
        let watch = Watch::new(&"https://x/v1/traces?key=hush".parse().unwrap(), 3, Arc::clone(&metrics));
        assert_eq!(watch.url(), "https://x/v1/traces", "a key is not for the log");
        let entered = (0..5).filter(|_| watch.enters()).count();
        assert_eq!((entered, metrics.spans_dropped.get()), (3, 2));
        watch.leaves(2);
        assert!(watch.enters(), "there is room again");
        watch.ended(2, &Err(OTelSdkError::Timeout(Duration::ZERO)));
        assert_eq!((metrics.spans_dropped.get(), watch.is_away.load(Ordering::Relaxed)), (4, true));
        watch.leaves(1);
        watch.ended(1, &Ok(()));
        assert_eq!((metrics.spans_dropped.get(), watch.is_away.load(Ordering::Relaxed)), (4, false));
        assert_eq!(watch.lost(), 5, "one waits for ever");
    }
}
