//! Exports finished spans to a collector, by OTLP over HTTP (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! Spans wait in a bounded queue, and a dedicated thread sends them in batches. While the collector is away they are
//! dropped and counted, which is logged once. Delivery never waits for it, and a shutdown only for a limited time.

mod client;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use config::{self, TracingConfig};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use outbound::egress::Egress;
use telemetry::metrics::HostMetrics;
use telemetry::spans::Spans;
use tracing::{info, warn};
use uuid::Uuid;

use crate::otlp::client::Client;
use crate::otlp::watch::{CountedProcessor, Watch, WatchedExporter};

/// Service name of this host, unless `OTEL_SERVICE_NAME` sets another.
const NAME: &str = env!("CARGO_PKG_NAME");
/// Maximum number of spans waiting to be sent. Further ones are dropped.
const SPANS_QUEUED_MAX: usize = 8192;
const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits to be batched with others.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Time limit of one batch, all steps included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for sending the last spans during a shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The connection to a collector, if one is configured.
pub(crate) struct Export(Option<RunningExport>);

struct RunningExport {
    provider: SdkTracerProvider,
    spans: Spans,
    watch: Arc<Watch>,
}

impl Export {
    /// Sets up the export without connecting. The error is one sentence.
    pub(crate) fn start(config: &TracingConfig, egress: Egress, metrics: Arc<HostMetrics>) -> anyhow::Result<Self> {
        let Some(config::Collector::At(url)) = &config.collector else { return Ok(Self(None)) };
        let watch = Arc::new(Watch::new(url, SPANS_QUEUED_MAX, metrics));
        let client = Client::new(url, &config.headers, egress, Arc::clone(&watch))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(url.as_str())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .context("cannot set up the export of spans")?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_QUEUED_MAX)
            .with_max_export_batch_size(BATCH_SPANS_MAX)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let exporter = WatchedExporter { exporter, watch: Arc::clone(&watch) };
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(CountedProcessor { batches, watch: Arc::clone(&watch) })
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio))))
            .with_resource(resource())
            .build();
        let scope = InstrumentationScope::builder(NAME).with_version(env!("CARGO_PKG_VERSION")).build();
        let spans = Spans::by(provider.tracer_with_scope(scope));
        info!("spans go to {}", watch.url());
        Ok(Self(Some(RunningExport { provider, spans, watch })))
    }

    /// Returns the factory of spans for this export.
    pub(crate) fn spans(&self) -> Spans {
        self.0.as_ref().map(|running| running.spans.clone()).unwrap_or_default()
    }

    /// Sends the remaining spans and ends the export.
    pub(crate) async fn flush(self) {
        let Some(RunningExport { provider, watch, .. }) = self.0 else { return };
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT));
        // The SDK logs a timeout itself, and the number of lost spans is logged below.
        let _ = flushed.await;
        if let lost @ 1.. = watch.lost() {
            let url = watch.url();
            warn!(lost, "not all spans reached the collector at {url}");
        }
    }
}

/// Describes this host as the source of the spans.
fn resource() -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name(NAME)
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", Uuid::new_v4().to_string()),
            KeyValue::new("process.pid", i64::from(std::process::id())),
        ])
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty()) {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}
