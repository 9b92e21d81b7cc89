//! ntfy and Gotify.

use serde_json::json;
use testbed::receiver::{Answer, Request};

use crate::chat::service::{Service, header, must, path, text};
use crate::chat::{case, check, service};

pub(super) fn ntfy() -> Service {
    Service {
        name: "ntfy",
        target: "ntfy://{secret:ntfy-token}@HOST/orders?tags=shop",
        secret: ("ntfy-token", "tk_canaryAgQdq7mVBoFD37zQVN29RhuMzNIz2"),
        rules: ntfy_message,
        taken: || Answer::status(200).body(r#"{"id":"xE73Iyuabi","event":"message","topic":"orders"}"#),
        refused: |rule| Answer::status(400).body(json!({ "code": 40024, "http": 400, "error": rule }).to_string()),
        busy: r#"{"code":42901,"http":429,"error":"limit reached: too many requests"}"#,
    }
}

fn ntfy_message(request: &Request) -> Result<(), String> {
    // https://docs.ntfy.sh/publish/#publish-as-json: to the root, never to the topic.
    path(request, "/")?;
    // https://docs.ntfy.sh/publish/#access-tokens
    header(request, "authorization", "Bearer tk_canaryAgQdq7mVBoFD37zQVN29RhuMzNIz2")?;
    let body = service::json(request, "POST")?;
    must(body["topic"] == "orders", "no topic")?;
    text(&body["title"], 250)?;
    // https://docs.ntfy.sh/publish/#limitations: a longer message becomes an attachment; the JSON may be
    // twice as long.
    let message = text(&body["message"], 4096)?;
    must(message.len() <= 4096, format!("a message of {} bytes", message.len()))?;
    must(request.body.len() <= 8192, format!("a body of {} bytes", request.body.len()))?;
    // https://docs.ntfy.sh/publish/#message-priority
    must(body["priority"].as_u64().is_some_and(|priority| (1..=5).contains(&priority)), "no priority")?;
    must(body["tags"] == json!(["shop"]), "no tags")?;
    // https://docs.ntfy.sh/publish/#markdown-formatting
    if body["markdown"] == true {
        unformatted(message)?;
    }
    // https://docs.ntfy.sh/publish/#updating-deleting-notifications
    let sequence = body["sequence_id"].as_str().unwrap_or_default();
    let is_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    must((1..=64).contains(&sequence.len()) && sequence.bytes().all(is_id), format!("the sequence {sequence:?}"))?;
    let click = body["click"].as_str();
    must(click.is_none_or(|url| url.starts_with("https://shop.example/")), format!("a click to {click:?}"))
}

#[test]
fn ntfy_takes_what_is_sent_and_its_errors_are_understood() {
    let error = |code: u32, told: &str| json!({ "code": code, "http": code / 100, "error": told }).to_string();
    check(
        ntfy(),
        &[
            case(401, &error(40101, "unauthorized"), "misconfigured", "unauthorized"),
            case(403, &error(40301, "forbidden"), "misconfigured", "forbidden"),
            case(413, &error(41303, "JSON request body too large"), "reject", "too-large"),
            case(429, &error(42901, "limit reached"), "retry", "limit reached"),
            case(400, &error(40024, "invalid request"), "reject", "http-400"),
            case(500, "", "retry", "500"),
        ],
    );
}

pub(super) fn gotify() -> Service {
    Service {
        name: "gotify",
        target: "gotify://HOST/{secret:gotify-token}",
        secret: ("gotify-token", "AcanaryWpJX"),
        rules: gotify_message,
        taken: || Answer::status(200).body(r#"{"id":25,"appid":5}"#),
        refused: |rule| Answer::status(400).body(gotify_error(400, "Bad Request", rule)),
        busy: "",
    }
}

/// <https://spec.commonmark.org/0.31.2/#backslash-escapes>
fn unformatted(markdown: &str) -> Result<(), String> {
    let mut rest = markdown.chars();
    while let Some(character) = rest.next() {
        if character == '\\' {
            rest.next();
        } else {
            must(!"*_`[]()<>#~".contains(character), format!("it would be formatted: {markdown:?}"))?;
        }
    }
    Ok(())
}

/// Returns an error as in <https://gotify.net/api-docs>, model `Error`.
fn gotify_error(status: u16, error: &str, description: &str) -> String {
    json!({ "error": error, "errorCode": status, "errorDescription": description }).to_string()
}

fn gotify_message(request: &Request) -> Result<(), String> {
    // https://gotify.net/docs/pushmsg
    path(request, "/message")?;
    header(request, "x-gotify-key", "AcanaryWpJX")?;
    let body = service::json(request, "POST")?;
    text(&body["message"], 32 << 10)?;
    text(&body["title"], 1000)?;
    must(body["priority"].as_u64().is_some_and(|priority| priority <= 10), "no priority")?;
    // https://gotify.net/docs/msgextras
    let display = &body["extras"]["client::display"]["contentType"];
    match display.as_str() {
        Some("text/plain") => {}
        Some("text/markdown") => unformatted(body["message"].as_str().unwrap_or_default())?,
        _ => return Err(format!("shown as {display}")),
    }
    let click = body["extras"]["client::notification"]["click"]["url"].as_str();
    must(click.is_none_or(|url| url.starts_with("https://shop.example/")), format!("a click to {click:?}"))
}

#[test]
fn gotify_takes_what_is_sent_and_its_errors_are_understood() {
    let token = gotify_error(401, "Unauthorized", "you need to provide a valid access token or user credentials");
    check(
        gotify(),
        &[
            case(401, &token, "misconfigured", "you need to provide a valid access token"),
            case(403, &gotify_error(403, "Forbidden", "you are not allowed"), "misconfigured", "not allowed"),
            case(
                400,
                &gotify_error(400, "Bad Request", "Field 'message' is required"),
                "reject",
                "'message' is required",
            ),
            case(500, "", "retry", "500"),
        ],
    );
}
