//! Sends each event to a URL: by CloudEvents in either mode, or in a form made by a template.
//!
//! The receiver can detect a repetition, because `webhook-id` and `idempotency-key` are the same on every attempt. It
//! can detect a forgery by the Standard Webhooks signature, which the host makes: the plugin sees no secret. Its
//! answer determines the outcome of the event.

mod binary;
mod headers;
mod plan;
mod settings;
mod signature;
mod structured;
mod target;

use notify_plugin::http::Request;
use notify_plugin::{
    Delivery, Event, Failure, Handled, HostError, Info, Plugin, Secret, misconfigured, now, retry, secret,
};

use crate::plan::Plan;
use crate::settings::{HeaderValue, Settings};

const CONFIG_SCHEMA: &str = include_str!("../config-schema.json");

struct Webhook;

impl Plugin for Webhook {
    // The plugin cannot request grants here, because its target is only known once it is configured. The first event
    // fails with the missing grant.
    fn describe() -> Info {
        Info::new("webhook", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
            .annotation("license", env!("CARGO_PKG_LICENSE"))
            .config_schema(CONFIG_SCHEMA)
    }

    fn handle(event: Event, delivery: Delivery) -> Handled {
        let settings: Settings = notify_plugin::config()?;
        let mut plan = Plan::new(&settings, &event, &delivery)?;
        let settle = |error| failure(error, false);
        let keys = settings.sign.iter().map(|name| secret(name)).collect::<Result<Vec<_>, _>>().map_err(settle)?;
        if !keys.is_empty() {
            let content = signature::content(&delivery.idempotency_key, now(), &plan.body);
            let digests = keys.iter().map(|key| key.hmac_sha256(&content.signed));
            let signatures = digests.collect::<Result<Vec<_>, _>>().map_err(settle)?;
            plan.headers.extend(signature::headers(&delivery.idempotency_key, &content, &signatures));
        }
        send(plan, &settings, &delivery)
    }
}

notify_plugin::export!(Webhook);

fn send(plan: Plan, settings: &Settings, delivery: &Delivery) -> Handled {
    let secrets = open(settings)?;
    let mut request = Request::new(settings.method.as_str(), plan.url).body(plan.content_type, plan.body);
    for (name, value) in plan.headers {
        request = request.header(name, value);
    }
    for (name, prefix, secret) in &secrets {
        request = request.secret_header(*name, *prefix, secret);
    }
    match request.send() {
        Ok(response) => response.outcome(&settings.meanings()?),
        // The host reserves enough of the attempt's time for returning this.
        Err(HostError::Timeout) => {
            Err(retry(format!("there was no complete answer in the {} ms of an attempt", delivery.budget)))
        }
        Err(error) => Err(failure(error, target::is_template(&settings.url))),
    }
}

/// Converts an error of the host. If the URL contains no event data, an invalid request is not the event's fault, and
/// other events would fail the same way.
fn failure(error: HostError, is_url_of_event: bool) -> Failure {
    match error {
        HostError::Invalid(reason) if !is_url_of_event => misconfigured(reason),
        error => error.into(),
    }
}

/// Opens the secrets that headers name. Returns each with the header's name and the prefix before the secret.
fn open(settings: &Settings) -> Result<Vec<(&str, &str, Secret)>, Failure> {
    let mut secrets = Vec::new();
    for (name, value) in &settings.headers {
        if let HeaderValue::Secret { secret: key, prefix } = value {
            secrets.push((name.as_str(), prefix.as_str(), secret(key)?));
        }
    }
    Ok(secrets)
}

#[cfg(test)]
pub(crate) mod tests {
    use notify_plugin::testing;

    use super::*;

    pub(crate) fn event() -> Event {
        Event {
            id: "e-1".to_owned(),
            source: "/shop".to_owned(),
            time: Some("2026-01-02T03:04:05Z".to_owned()),
            ..testing::event("OrderCreated", r#"{"product": "iPhone 15",  "price": 1.50}"#)
        }
    }

    pub(crate) fn delivery() -> Delivery {
        Delivery { attempt: 2, idempotency_key: "key-1".to_owned(), ..testing::delivery() }
    }

    #[test]
    fn what_makes_no_sense_is_the_events_fault_only_where_it_has_a_part_in_it() {
        let invalid = || HostError::Invalid("no".to_owned());
        assert!(matches!(failure(invalid(), false), Failure::Misconfigured(_)));
        assert!(matches!(failure(invalid(), true), Failure::Reject(_)));
        assert!(matches!(failure(HostError::Unavailable(String::new()), false), Failure::Retry(_)));
    }

    #[test]
    fn every_setting_is_described() {
        let schema: serde_json::Value = serde_json::from_str(CONFIG_SCHEMA).expect("the schema is JSON");
        for (name, setting) in schema["properties"].as_object().expect("it has settings") {
            assert!(setting["description"].is_string(), "{name}");
        }
    }
}
