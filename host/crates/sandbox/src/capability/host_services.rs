//! The services that plugins reach through the host: HTTP, secrets, the SMTP relay.
//!
//! The host has one [`HostServices`]. Each version of a plugin has its own [`PluginAccess`], built from its grants
//! and shared by all of its attempts.

use std::sync::Arc;

use config::{Grants, HostConfig, PluginConfig};
use outbound::egress::{Bounds, Egress, EgressError, Gate, Head, Request, Resolver, Response, Target, Trust};
use outbound::smtp::SmtpRelay;
use telemetry::log_writer::LogStatus;
use telemetry::metrics::{Metrics, PluginMetrics, Requested};

use crate::capability::answer::{OTHER_FORMS, Redacted, set_length};
use crate::capability::preview::Preview;
use crate::capability::secret_store::SecretStore;

/// Services that all plugins share.
#[derive(Clone, Debug, Default)]
pub struct HostServices {
    egress: Egress,
    /// `None` if the operator configured no relay.
    relay: Option<Arc<SmtpRelay>>,
    /// Counts the requests that plugins send.
    metrics: Metrics,
    log: LogStatus,
}

/// The services that one plugin may reach.
#[derive(Debug, Default)]
pub struct PluginAccess {
    /// The values of its secrets.
    pub secret_store: Arc<SecretStore>,
    pub grants: Grants,
    pub relay: Option<Arc<SmtpRelay>>,
    preview: Option<Preview>,
    pub gate: Gate,
    pub metrics: Arc<PluginMetrics>,
    /// The status of the log that the plugin's lines go to.
    pub log: LogStatus,
}

impl HostServices {
    /// Creates the services without opening a connection. The error is one sentence.
    pub fn new(config: &HostConfig) -> anyhow::Result<Self> {
        let trust = Arc::new(Trust::with(&config.egress_ca)?);
        let relay = config.mail.as_ref().map(|mail| Arc::new(SmtpRelay::new(mail, trust.extra_roots())));
        Ok(Self { egress: Egress { resolver: Resolver::System, trust }, relay, ..Self::default() })
    }

    /// Counts requests in these metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Uses the log of a host.
    #[must_use]
    pub fn logging(self, log: LogStatus) -> Self {
        Self { log, ..self }
    }

    /// Returns the egress for the host's own requests.
    pub fn egress(&self) -> Egress {
        self.egress.clone()
    }

    /// Returns the metrics of the plugin with this name.
    pub fn metrics_of(&self, plugin: &str) -> Arc<PluginMetrics> {
        self.metrics.of_plugin(plugin)
    }

    /// Returns the access for a plugin with this configuration.
    pub fn access(
        &self,
        plugin: &str,
        config: &PluginConfig,
        secret_store: Arc<SecretStore>,
        preview: Option<Preview>,
    ) -> Arc<PluginAccess> {
        let preview = preview.map(|preview| preview.hiding(Arc::clone(&secret_store)));
        let gate = Gate::new(self.egress.clone(), config.grants.origins(), config.grants.networks.clone());
        let (grants, relay, log) = (config.grants.clone(), self.relay.clone(), self.log.clone());
        Arc::new(PluginAccess {
            secret_store,
            grants,
            relay,
            preview,
            gate,
            metrics: self.metrics.of_plugin(plugin),
            log,
        })
    }
}

impl PluginAccess {
    /// Returns the preview if somebody watches the requests or holds them back.
    pub(super) fn preview(&self) -> Option<&Preview> {
        self.preview.as_ref().filter(|preview| preview.is_needed())
    }

    /// Parses a URL that has no placeholder for a secret.
    pub(super) fn target(&self, url: &str) -> Result<Target, EgressError> {
        self.gate.target(url).map_err(|error| {
            // A plugin that was shown a value may put it into a URL, and errors show a truncated URL.
            let shown = self.secret_store.redact(url.to_owned());
            let is_told = matches!(error, EgressError::Invalid(_)) && shown != url;
            if is_told { EgressError::Invalid("the URL is none, and has a secret in it".to_owned()) } else { error }
        })
    }

    /// Returns whether a plugin's header is dropped, because it would keep the host from finding secrets in the
    /// response.
    pub(super) fn leaves_out(&self, header: &str) -> bool {
        self.secret_store.has_secrets() && OTHER_FORMS.iter().any(|name| name.as_str().eq_ignore_ascii_case(header))
    }

    /// Checks whether the gate would let the request out.
    pub(super) fn check(&self, url: &Target) -> Result<(), EgressError> {
        self.gate.check(url).inspect_err(|error| self.metrics.requested(result_of(error)))
    }

    /// Sends a request through the gate and counts it. The returned body has no value of the plugin's secrets.
    pub(super) async fn send(&self, request: Request, bounds: Bounds) -> Result<Response, EgressError> {
        let response = if self.secret_store.has_secrets() {
            self.send_with_secrets(request, bounds).await
        } else {
            self.gate.send(request, bounds).await
        };
        self.metrics.requested(match &response {
            Ok(response) => match response.status.as_u16() {
                0..200 => Requested::Informational,
                200..300 => Requested::Success,
                300..400 => Requested::Redirection,
                400..500 => Requested::ClientError,
                500.. => Requested::ServerError,
            },
            Err(error) => result_of(error),
        });
        response
    }

    async fn send_with_secrets(&self, mut request: Request, bounds: Bounds) -> Result<Response, EgressError> {
        request.wants_identity(&OTHER_FORMS);
        let method = request.method.clone();
        let mut body = Redacted::new(&self.secret_store, bounds.body_bytes_max);
        let head = self.gate.exchange(request, bounds.deadline, &mut body).await.map_err(|error| match error {
            // The problem may repeat text from a server.
            EgressError::Unavailable { target, step, problem } => {
                EgressError::Unavailable { target, step, problem: self.secret_store.redact(problem) }
            }
            other => other,
        })?;
        let (body, is_truncated) = body.finish(&head);
        let Head { status, mut headers, .. } = head;
        set_length(&mut headers, &method, status, (!is_truncated).then_some(body.len()));
        Ok(Response { status, headers, body: body.into(), is_truncated })
    }
}

/// Returns the result for metrics and traces.
pub(super) fn result_of(error: &EgressError) -> Requested {
    match error {
        EgressError::Denied(_) => Requested::Denied,
        EgressError::Invalid(_) => Requested::Invalid,
        EgressError::Quota(_) => Requested::Quota,
        EgressError::TimedOut { .. } => Requested::TimedOut,
        EgressError::Unavailable { .. } | EgressError::UnusableBody { .. } => Requested::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_url_has_no_part_of_a_secret_in_it() {
        let access = PluginAccess {
            secret_store: Arc::new(SecretStore::of("token", "a-secret-value")),
            ..PluginAccess::default()
        };
        for before in 180..200 {
            let url = format!("http://[{}a-secret-value", "x".repeat(before));
            let told = access.target(&url).unwrap_err().to_string();
            assert!(!told.contains("a-s") && told.contains("has a secret in it"), "{told}");
        }
        assert!(access.target("http://[").unwrap_err().to_string().contains("http://["));
    }
}
