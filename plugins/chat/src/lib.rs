//! Sends notifications to chat: Slack, Discord, Microsoft Teams, Mattermost, Telegram, ntfy, Gotify, Matrix.
//!
//! Targets are URLs in the configuration. Event data is literal text at every target: it formats nothing, links to
//! nothing and mentions nobody.

mod address;
mod exchange;
mod fit;
mod message;
mod service;
mod settings;
mod target;
mod template;

use std::collections::BTreeSet;
use std::time::Duration;

use notify_plugin::http::Request as Exchange;
use notify_plugin::{
    Delivery, Event, Failure, Handled, HostError, Info, Plugin, done_with, misconfigured, reject, retry, retry_after,
    secret, skipped, warn,
};

use crate::address::Credential;
use crate::exchange::{Request, SendOutcome, ServiceReply};
use crate::message::{Message, Severity, Text};
use crate::service::Service;
use crate::settings::{SCHEMA, Settings};
use crate::template::Renderer;

struct Chat;

impl Plugin for Chat {
    fn describe() -> Info {
        let info = Info::new(
            "chat",
            env!("CARGO_PKG_VERSION"),
            "Tells people in their chat: Slack, Discord, Microsoft Teams, Mattermost, Telegram, ntfy, Gotify, Matrix",
        )
        .annotation("license", env!("CARGO_PKG_LICENSE"))
        .config_schema(SCHEMA);
        let capability_requests =
            notify_plugin::config().map(|settings: Settings| capability_requests(&settings)).unwrap_or_default();
        capability_requests.into_iter().fold(info, |info, (capability, scope)| {
            info.request(capability, scope, "tells the targets in its configuration")
        })
    }

    fn handle(event: Event, delivery: Delivery) -> Handled {
        let settings: Settings = notify_plugin::config()?;
        let targets = target::targets(&settings).map_err(|fault| misconfigured(format!("[config] {fault}")))?;
        let renderer = Renderer { event: &event, delivery: &delivery };
        let mut told = Vec::new();
        for target in &targets {
            let message = settings.message(&renderer, target.format, target.service.escape())?;
            if message.severity < target.severity {
                continue;
            }
            let label = target.service.label();
            match tell(&*target.service, &message, &delivery.idempotency_key) {
                Ok(Some(id)) => told.push(format!("{label}: {id}")),
                Ok(None) => told.push(label),
                Err(failure) => {
                    if !told.is_empty() {
                        warn!(label = label, "told before it failed: {}", told.join(", "));
                    }
                    return Err(with_label(failure, &label));
                }
            }
        }
        if told.is_empty() {
            return skipped("it matters less than what the targets are told");
        }
        done_with(told.join(", "))
    }
}

notify_plugin::export!(Chat);

/// Returns the capability and scope that each target needs. Faulty targets are reported when an event is sent.
fn capability_requests(settings: &Settings) -> BTreeSet<(&'static str, String)> {
    let nothing = Message {
        title: String::new(),
        text: Text::Plain(String::new()),
        fields: Vec::new(),
        severity: Severity::Info,
        link: None,
    };
    let mut capability_requests = BTreeSet::new();
    for target in target::targets(settings).unwrap_or_default() {
        let request = target.service.request(&nothing, "");
        capability_requests.extend(request.origin().map(|origin| ("http", origin)));
        capability_requests.extend(request.secrets().into_iter().map(|name| ("secret", name)));
    }
    capability_requests
}

/// Sends one message to one target. Returns the id of the message, if the service returns one.
fn tell(service: &dyn Service, message: &Message, key: &str) -> Result<Option<String>, Failure> {
    let verdict = service.judge(&send(&service.request(message, key))?);
    let SendOutcome::Moved(to) = verdict else { return outcome(verdict) };
    let label = service.label();
    warn!(label = label, "the chat has moved to {to}: change the target");
    match service.moved(to) {
        Some(moved) => outcome(moved.judge(&send(&moved.request(message, key))?)),
        None => outcome(SendOutcome::Moved(to)),
    }
}

fn outcome(verdict: SendOutcome) -> Result<Option<String>, Failure> {
    match verdict {
        SendOutcome::Sent(id) => Ok(id),
        SendOutcome::Retry { reason, after: Some(after) } => Err(retry_after(reason, after)),
        SendOutcome::Retry { reason, after: None } => Err(retry(reason)),
        SendOutcome::Reject { code, reason } => Err(reject(code, reason)),
        SendOutcome::Misconfigured(reason) => Err(misconfigured(reason)),
        SendOutcome::Moved(to) => Err(misconfigured(format!("the chat has moved to {to}: change the target"))),
    }
}

fn send(request: &Request) -> Result<ServiceReply, HostError> {
    let exchange = Exchange::new(request.method, &request.url);
    let exchange = exchange.body("application/json; charset=utf-8", request.body.clone());
    let response = match &request.authorization {
        None => exchange.send()?,
        Some((header, Credential::Text(value))) => exchange.header(*header, value).send()?,
        Some((header, Credential::Secret { prefix, name })) => {
            let secret = secret(name)?;
            exchange.secret_header(*header, *prefix, &secret).send()?
        }
    };
    let millis = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    Ok(ServiceReply {
        status: response.status(),
        retry_after: response.retry_after().map(millis),
        body: response.body().to_vec(),
    })
}

fn with_label(failure: Failure, label: &str) -> Failure {
    match failure {
        Failure::Retry(retry) => {
            Failure::Retry(notify_plugin::Retry { reason: format!("{label}: {}", retry.reason), ..retry })
        }
        Failure::Reject(rejection) => {
            Failure::Reject(notify_plugin::Rejection { reason: format!("{label}: {}", rejection.reason), ..rejection })
        }
        Failure::Misconfigured(reason) => misconfigured(format!("{label}: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(targets: &str, expected: &[&str]) {
        let settings: Settings = serde_json::from_str(&format!(r#"{{"targets": {targets}}}"#)).unwrap();
        let capability_requests: Vec<_> =
            capability_requests(&settings).iter().map(|(capability, scope)| format!("{capability} {scope}")).collect();
        assert_eq!(capability_requests, expected, "{targets}");
    }

    #[test]
    fn it_asks_for_what_its_targets_need_and_for_nothing_else() {
        check(r#"["slack://T/B/{secret:hook}"]"#, &["http https://hooks.slack.com", "secret hook"]);
        check(r#"["slack://{secret:bot}/#general"]"#, &["http https://slack.com", "secret bot"]);
        check(
            r#"["matrixs://{secret:m}@matrix.example:8448/!room:example"]"#,
            &["http https://matrix.example:8448", "secret m"],
        );
        check(r#"["ntfy://orders"]"#, &["http https://ntfy.sh"]);
        check(r#"["gotify://[::1]:8080/{secret:g}"]"#, &["http http://[::1]:8080", "secret g"]);
        check(r#"["carrier-pigeon://loft"]"#, &[]);
        check("[]", &[]);
    }
}
