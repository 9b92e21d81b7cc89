//! Prometheus text exposition format, version 0.0.4.

use metrics::{Key, Label};
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};
use telemetry::metrics::Tally;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Upper bounds of histogram buckets, in microseconds. Each is among `telemetry::metrics::BOUNDS`.
const BUCKETS: [u64; 18] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000, 20_000_000,
];

/// The page being written.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

/// Names and values of labels.
pub(super) type Labels<'l> = &'l [(&'static str, &'l str)];

/// All series of one metric name.
pub(super) struct Family<'e> {
    text: &'e mut String,
    name: &'static str,
}

impl Exposition {
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "histogram", help)
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        write_help_line(&mut self.text, name, None, None, help);
        write_type_line(&mut self.text, name, None, None, kind);
        Family { text: &mut self.text, name }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    pub(super) fn count(&mut self, labels: Labels<'_>, value: u64) {
        write_metric_line::<&str, _>(self.text, self.name, None, &set(labels), None, value, None);
    }

    pub(super) fn value(&mut self, labels: Labels<'_>, value: f64) {
        write_metric_line::<&str, _>(self.text, self.name, None, &set(labels), None, value, None);
    }

    pub(super) fn times(&mut self, labels: Labels<'_>, tally: &Tally) {
        let labels = set(labels);
        for bound in BUCKETS {
            let bucket = Some(("le", seconds(bound)));
            let within = tally.within(bound);
            write_metric_line(self.text, self.name, Some("bucket"), &labels, bucket, within, None);
        }
        let count = tally.count();
        write_metric_line(self.text, self.name, Some("bucket"), &labels, Some(("le", "+Inf")), count, None);
        let sum = tally.sum().as_secs_f64();
        write_metric_line::<&str, _>(self.text, self.name, Some("sum"), &labels, None, sum, None);
        write_metric_line::<&str, _>(self.text, self.name, Some("count"), &labels, None, count, None);
    }
}

fn set(labels: Labels<'_>) -> LabelSet {
    let labels: Vec<_> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    let of_all = std::iter::empty::<(String, String)>().collect();
    LabelSet::from_key_and_global(&Key::from_parts("", labels), &of_all)
}

fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use telemetry::metrics::{BOUNDS, Times};

    use super::*;

    #[test]
    fn it_is_written_as_prometheus_reads_it() {
        let mut page = Exposition::default();
        let mut events = page.counter("notify_events_total", "Events that came");
        events.count(&[("result", "routed")], 3);
        events.count(&[("result", "a\"b\nc")], 0);
        page.gauge("notify_ready", "Whether").value(&[], 1.0);
        let times = Times::default();
        times.took(Duration::from_millis(3));
        times.took(Duration::from_mins(1));
        page.histogram("x_seconds", "How long").times(&[("plugin", "p")], &times.tally());
        let text = page.into_text();
        let lines: Vec<_> = text.lines().collect();
        let expected = [
            "# HELP notify_events_total Events that came",
            "# TYPE notify_events_total counter",
            "notify_events_total{result=\"routed\"} 3",
            "notify_events_total{result=\"a\\\"b\\nc\"} 0",
            "# HELP notify_ready Whether",
            "# TYPE notify_ready gauge",
            "notify_ready 1",
        ];
        assert_eq!(lines[..expected.len()], expected);
        for line in [
            "x_seconds_bucket{plugin=\"p\",le=\"0.002\"} 0",
            "x_seconds_bucket{plugin=\"p\",le=\"0.005\"} 1",
            "x_seconds_bucket{plugin=\"p\",le=\"20\"} 1",
            "x_seconds_bucket{plugin=\"p\",le=\"+Inf\"} 2",
            "x_seconds_sum{plugin=\"p\"} 60.003",
            "x_seconds_count{plugin=\"p\"} 2",
        ] {
            assert!(lines.contains(&line), "{line} in {text}");
        }
    }

    #[test]
    fn the_buckets_end_where_the_counting_does() {
        assert!(BUCKETS.iter().all(|bucket| BOUNDS.contains(bucket)));
    }
}
