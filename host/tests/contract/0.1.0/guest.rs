//! A plugin that uses every part of the contract and reports what it found. It was compiled once; see the README.

use notify_plugin::bindings::notify::plugin::{config, log, mail};
use notify_plugin::{
    Delivery, Event, Handled, HostError, Info, Level, Plugin, done_with, http, misconfigured, reject, retry_after, secrets,
    skipped,
};

struct Guest;

impl Plugin for Guest {
    fn describe() -> Info {
        Info::new("contract", "0.1.0", "Uses all of the contract")
            .subscribe("contract.#")
            .subscribe_to("#", Some("test".to_owned()), Some("*".to_owned()))
            .config_schema(r#"{"type":"object"}"#)
            .request("secret", "anything", "to see that it is denied")
            .annotation("license", "MIT OR Apache-2.0")
    }

    fn handle(event: Event, delivery: Delivery) -> Handled {
        let fields = [("key".to_owned(), config::get("key").unwrap_or_default())];
        for level in [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error] {
            if log::enabled(level) {
                log::write(level, &format!("{level:?}"), &fields);
            }
        }
        let secret = matches!(secrets::open("anything"), Err(HostError::Denied(_)));
        let headers = vec![("x".to_owned(), http::HeaderValue::Text("y".to_owned()))];
        let (method, url) = ("GET".to_owned(), "https://example.com/".to_owned());
        let request = http::Request { method, url, headers, body: vec![1], timeout: Some(1000) };
        let http = matches!(http::send(&request), Err(HostError::Denied(_)));
        let to = vec![mail::Address { email: "a@example.com".to_owned(), name: None }];
        let message = mail::Message {
            to,
            cc: Vec::new(),
            bcc: Vec::new(),
            reply_to: None,
            subject: "subject".to_owned(),
            text: Some("text".to_owned()),
            html: None,
            attachments: Vec::new(),
            headers: Vec::new(),
        };
        let mail = matches!(mail::send(&message), Err(HostError::Denied(_)));
        notify_plugin::info!(
            "{} {} {:?} {:?} {} {:?} attempt {} of {}, {} ms, keys {} {}, denied {secret} {http} {mail}, config {}",
            event.id,
            event.event_type,
            event.subject,
            event.time,
            event.data,
            event.extensions,
            delivery.attempt,
            delivery.max_attempts,
            delivery.budget,
            delivery.idempotency_key.is_empty(),
            delivery.transport.is_empty(),
            config::get_json(),
        );
        match event.event_type.as_str() {
            "contract.skipped" => skipped("told to"),
            "contract.retry" => Err(retry_after("told to", 1)),
            "contract.reject" => Err(reject("told-to", "told to")),
            "contract.misconfigured" => Err(misconfigured("told to")),
            _ => done_with("told to"),
        }
    }
}

notify_plugin::export!(Guest);
