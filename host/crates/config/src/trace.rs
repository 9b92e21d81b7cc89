//! The export of spans, `[tracing]` in the host's file.

use std::str::FromStr;

use http::HeaderName;
use url::Url;

use crate::reader::{Faults, Privacy, Table, key};
use crate::secrets::{self, SecretSource};

/// Path of a collector's trace endpoint, below its base URL
/// (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-request>).
const PATH: &str = "v1/traces";

/// The settings of span export.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingConfig {
    /// `None`: not configured.
    pub collector: Option<Collector>,
    /// Share of the traces started here that is kept. A trace that a publisher started follows the publisher's
    /// decision.
    pub sample_ratio: f64,
    /// Extra request headers for the collector, such as `authorization`, and where their values come from.
    pub headers: Vec<(String, SecretSource)>,
}

/// The receiver of spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collector {
    /// Spans are not exported.
    Off,
    /// The URL that spans are posted to.
    At(Url),
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self { collector: None, sample_ratio: 1.0, headers: Vec::new() }
    }
}

impl FromStr for Collector {
    type Err = String;

    /// Parses `off` or a URL. The error never repeats the text, because it may contain a password.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let mut url = exactly(text)?;
        let path = url.path().trim_end_matches('/');
        if !path.ends_with(&format!("/{PATH}")) {
            let path = format!("{path}/{PATH}");
            url.set_path(&path);
        }
        Ok(Self::At(url))
    }
}

fn exactly(text: &str) -> Result<Url, String> {
    let wrong = || {
        "expected the URL of a collector that speaks OTLP over HTTP, such as \"http://127.0.0.1:4318\", or \"off\""
            .to_owned()
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user does not belong into the URL: write [tracing.headers.authorization] and below it env = \
                    \"VARIABLE\", file = \"PATH\" or credential = \"NAME\""
            .to_owned());
    }
    Ok(url)
}

impl TracingConfig {
    pub fn is_on(&self) -> bool {
        matches!(self.collector, Some(Collector::At(_)))
    }

    /// Falls back to OpenTelemetry's standard variables if no collector is configured
    /// (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).
    pub(super) fn resolve(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), String> {
        if self.collector.is_some() {
            return Ok(());
        }
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(());
        }
        let (traces, all) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
        self.collector = match (variable(traces), variable(all)) {
            (Some(url), _) => Some(Collector::At(exactly(&url).map_err(|problem| format!("{traces}: {problem}"))?)),
            (None, Some(url)) => Some(url.parse().map_err(|problem| format!("{all}: {problem}"))?),
            (None, None) => None,
        };
        Ok(())
    }
}

/// Reads `[tracing]`.
pub(super) fn read(faults: &mut Faults<'_>, mut table: Table<'_>) -> TracingConfig {
    let default = TracingConfig::default();
    let otlp = key("otlp", "The collector: its base URL, or off")
        .otherwise("The variables of OpenTelemetry itself say where, else nowhere")
        .example("http://127.0.0.1:4318")
        .private(Privacy::Whole)
        .variable("NOTIFY_OTLP");
    let ratio = key(
        "sample-ratio",
        "Of the traces that begin here, this part is kept; one that a publisher began is kept if he keeps it",
    )
    .default("1");
    let headers = key(
        "headers",
        "What the collector wants to be told, such as [tracing.headers.authorization], and where each value comes from",
    )
    .private(Privacy::Whole);
    let config = TracingConfig {
        collector: table.parsed(faults, otlp),
        sample_ratio: table.ratio(faults, ratio).unwrap_or(default.sample_ratio),
        headers: table
            .named_tables(faults, headers)
            .into_iter()
            .filter_map(|(name, at, mut table)| {
                let path = format!("tracing.headers.{name}");
                if name.parse::<HeaderName>().is_err() {
                    faults.add(at.clone(), format!("{path}: {name:?} is no name of a header"));
                }
                let source = secrets::source(faults, &mut table, &path, at);
                table.finish(faults);
                Some((name, source?))
            })
            .collect(),
    };
    table.finish(faults);
    config
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::HostConfig;

    fn parse(text: &str) -> Result<TracingConfig, String> {
        HostConfig::parse(Path::new("host.toml"), text).map(|config| config.tracing)
    }

    fn url(config: &TracingConfig) -> Option<&str> {
        match &config.collector {
            Some(Collector::At(url)) => Some(url.as_str()),
            Some(Collector::Off) => Some("off"),
            None => None,
        }
    }

    #[test]
    fn a_whole_table() {
        let config = parse(
            "[tracing]\notlp = \"https://otel.example.com\"\nsample-ratio = 0.25\n\
             [tracing.headers.authorization]\nfile = \"token\"\n[tracing.headers.x-tenant]\nenv = \"TENANT\"\n",
        )
        .unwrap();
        assert_eq!(url(&config), Some("https://otel.example.com/v1/traces"));
        assert!((config.sample_ratio - 0.25).abs() < f64::EPSILON);
        let headers: Vec<_> = config.headers.iter().map(|(name, source)| format!("{name}: {source}")).collect();
        assert_eq!(headers, ["authorization: the file token", "x-tenant: the environment variable TENANT"]);
        assert_eq!(parse("").unwrap(), TracingConfig::default());
        assert_eq!(url(&parse("[tracing]\notlp = \"off\"\nsample-ratio = 1\n").unwrap()), Some("off"));
    }

    #[test]
    fn a_collector_is_named_by_its_base_or_by_the_whole() {
        for (text, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"),
            ("https://example.com/otlp/", "https://example.com/otlp/v1/traces"),
            ("https://example.com/otlp?team=a", "https://example.com/otlp/v1/traces?team=a"),
        ] {
            assert_eq!(text.parse(), Ok(Collector::At(expected.parse().unwrap())), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_a_password() {
        for (line, expected) in [
            ("otlp = \"127.0.0.1:4318\"", "host.toml:2: tracing.otlp: expected the URL of a collector"),
            ("otlp = \"grpc://x\"", "host.toml:2: tracing.otlp: expected the URL of a collector"),
            ("otlp = \"https://me:hunter2@x\"", "host.toml:2: tracing.otlp: a user does not belong into the URL"),
            ("sample-ratio = 1.5", "host.toml:2: tracing.sample-ratio: expected a number from 0 to 1, got 1.5"),
            ("sample-ratio = nan", "host.toml:2: tracing.sample-ratio: expected a number from 0 to 1, got nan"),
            ("sample-ratio = \"all\"", "host.toml:2: tracing.sample-ratio: expected a number from 0 to 1, got a text"),
            ("oltp = \"http://x\"", "host.toml:2: unknown key \"tracing.oltp\"; did you mean \"otlp\"?"),
            ("headers.x = {}", "tracing.headers.x: where its value comes from is missing"),
            ("headers.\"a b\" = { env = \"X\" }", "\"a b\" is no name of a header"),
        ] {
            let error = parse(&format!("[tracing]\n{line}\n")).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_said_wins_over_the_standard_variables() {
        const ALL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all");
        const TRACES: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces/x");
        let check = |file: &str, variables: &[(&str, &str)], expected: Option<&str>| {
            let mut config = parse(file).unwrap();
            let variable = |wanted: &str| {
                let found = variables.iter().find(|(name, _)| *name == wanted);
                found.map(|(_, value)| (*value).to_owned())
            };
            config.resolve(variable).unwrap();
            assert_eq!(url(&config), expected, "{file} {variables:?}");
        };
        let file = "[tracing]\notlp = \"http://file\"\n";
        check(file, &[ALL, TRACES], Some("http://file/v1/traces"));
        check("[tracing]\notlp = \"off\"\n", &[ALL], Some("off"));
        check("", &[ALL], Some("http://all/v1/traces"));
        // As the specification says: this one is the whole URL.
        check("", &[ALL, TRACES], Some("http://traces/x"));
        check("", &[ALL, ("OTEL_SDK_DISABLED", "true")], None);
        check("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], None);
        check("", &[], None);
        let wrong = TracingConfig::default().resolve(|name| (name == ALL.0).then(|| "x".to_owned()));
        assert!(wrong.unwrap_err().starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: expected the URL"));
    }
}
