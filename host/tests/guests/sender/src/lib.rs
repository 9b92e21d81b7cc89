//! A guest that sends requests and mails with a secret in them, or leaks the secret everywhere it can.

mod views;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use notify_plugin::bindings::notify::plugin::{http, mail, secrets};
use notify_plugin::{Delivery, Event, Failure, Handled, Info, Plugin, done_with, info, misconfigured, reject, retry};
use serde::Deserialize;

#[derive(Deserialize)]
struct Settings {
    act: String,
    #[serde(default)]
    url: String,
    /// Name of the secret.
    #[serde(default)]
    secret: String,
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    asks: Vec<views::Ask>,
}

struct Sender;

impl Plugin for Sender {
    fn describe() -> Info {
        Info::new("sender", env!("CARGO_PKG_VERSION"), "Sends with secrets, and tells them where it can").request(
            "secret",
            "token",
            "to show what it can do",
        )
    }

    fn handle(event: Event, _delivery: Delivery) -> Handled {
        let settings: Settings = notify_plugin::config()?;
        match settings.act.as_str() {
            "send" => send(&settings, &event),
            "open" => {
                secrets::open(&settings.secret).map(|_| ()).map_err(Failure::from).and_then(|()| done_with("open"))
            }
            "hoard" => hoard(&settings.secret),
            "mail" => write_to(&settings, &event),
            "look" => views::look(&settings),
            _ => tell(&settings),
        }
    }
}

/// Sends a request with the secret in one header and a signature in another.
fn send(settings: &Settings, event: &Event) -> Handled {
    let secret = secrets::open(&settings.secret)?;
    let signature = STANDARD.encode(secret.hmac_sha256(event.data.as_bytes())?);
    let text = |name: &str, value: &str| (name.to_owned(), http::HeaderValue::Text(value.to_owned()));
    let request = http::Request {
        method: "POST".to_owned(),
        url: settings.url.clone(),
        headers: vec![
            text("content-type", "application/json"),
            text("signature", &signature),
            ("authorization".to_owned(), http::HeaderValue::Secret(("Bearer ".to_owned(), &secret))),
        ],
        body: event.data.clone().into_bytes(),
        timeout: None,
    };
    let response = http::send(&request)?;
    for (name, value) in &response.headers {
        info!("answered {name}: {}", String::from_utf8_lossy(value));
    }
    let body = String::from_utf8_lossy(&response.body);
    info!("answered {body}");
    // Reversed, so that the host's redaction cannot hide what the guest has seen.
    info!("backwards {}", body.chars().rev().collect::<String>());
    done_with(format!("{} {body}", response.status))
}

/// Leaks the secret in every possible way.
fn tell(settings: &Settings) -> Handled {
    let secret = secrets::open(&settings.secret)?;
    let value = secret.reveal()?;
    let basic = STANDARD.encode(format!("ann:{value}"));
    info!(value = value, "the value is {value}, as {value:?} and {basic}");
    println!("printed {value}");
    eprintln!("printed {value}");
    // The value straddles the length at which the host cuts a line without a line feed.
    println!("{}{value}", "x".repeat(4096 - value.len() / 2));
    if !settings.url.is_empty() {
        let request = http::Request {
            method: "POST".to_owned(),
            url: format!("{}?basic={basic}", settings.url),
            headers: vec![("authorization".to_owned(), http::HeaderValue::Text(format!("Basic {basic}")))],
            body: format!("{{\"value\":{value:?}}}").into_bytes(),
            timeout: None,
        };
        let response = http::send(&request)?;
        info!("answered {}", String::from_utf8_lossy(&response.body));
    }
    match settings.act.as_str() {
        "reject" => Err(reject(format!("cannot-{value}"), format!("cannot use {value}, nor {basic}"))),
        "retry" => Err(retry(format!("cannot use {value}"))),
        "misconfigured" => Err(misconfigured(format!("cannot use {value}"))),
        "panic" => panic!("cannot use {value}"),
        _ => done_with(format!("used {value}, and {}{value}", "x".repeat(4090))),
    }
}

/// Opens more handles of the secret than the limit allows.
fn hoard(secret: &str) -> Handled {
    // Dropping a handle makes room for another.
    for _ in 0..2000 {
        drop(secrets::open(secret)?);
    }
    let mut all = Vec::new();
    for _ in 0..2000 {
        all.push(secrets::open(secret)?);
    }
    done_with(format!("it has {}", all.len()))
}

fn write_to(settings: &Settings, event: &Event) -> Handled {
    let to = settings.to.iter().map(|email| mail::Address { email: email.clone(), name: None }).collect();
    let message = mail::Message {
        to,
        cc: Vec::new(),
        bcc: Vec::new(),
        reply_to: None,
        subject: "Grüße aus dem Test".to_owned(),
        text: Some(format!("Grüße: {}", event.id)),
        html: Some(format!("<p>Grüße: {}</p>", event.id)),
        attachments: Vec::new(),
        headers: Vec::new(),
    };
    let id = mail::send(&message)?;
    done_with(id)
}

notify_plugin::export!(Sender);
