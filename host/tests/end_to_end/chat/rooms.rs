//! Telegram and Matrix.

use serde_json::{Value, json};
use testbed::receiver::{Answer, Request};

use crate::chat::service::{Service, called, header, must, path, text};
use crate::chat::{case, check, service};

pub(super) fn telegram() -> Service {
    Service {
        name: "telegram",
        target: "tgram://{secret:telegram-token}/-1001234567890:7?endpoint=http://HOST",
        secret: ("telegram-token", "110201543:AAHcanary-r9Gp_hnHsF7p1OFeEd"),
        rules: telegram_message,
        taken: || Answer::status(200).body(r#"{"ok":true,"result":{"message_id":42}}"#),
        refused: |rule| {
            Answer::status(400).body(
                json!({ "ok": false, "error_code": 400, "description": format!("Bad Request: {rule}") }).to_string(),
            )
        },
        busy: r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 1","parameters":{"retry_after":1}}"#,
    }
}

fn telegram_message(request: &Request) -> Result<(), String> {
    // https://core.telegram.org/bots/api#making-requests: the token as it is, with its colon.
    path(request, &format!("/bot{}/sendMessage", telegram().secret.1))?;
    let body = service::json(request, "POST")?;
    // https://core.telegram.org/bots/api#sendmessage
    let chats = [json!(-1_001_234_567_890_i64), json!(-100_777)];
    must(chats.contains(&body["chat_id"]), format!("chat {}", body["chat_id"]))?;
    must(body["message_thread_id"] == 7, "no topic")?;
    must(body["parse_mode"] == "HTML", "no HTML")?;
    let html = body["text"].as_str().ok_or("no text")?;
    let plain = html_text(html, &["b", "i", "a"])?;
    let size = plain.encode_utf16().count();
    must((1..=4096).contains(&size), format!("message is too long: {size}"))?;
    // https://core.telegram.org/bots/api#messageentity: Telegram detects a name even without markup.
    must(called(&plain).is_empty(), format!("{:?} would be called by {plain:?}", called(&plain)))
}

/// Returns the text of HTML that uses only these tags, closed correctly
/// (<https://core.telegram.org/bots/api#html-style>).
fn html_text(html: &str, tags: &[&str]) -> Result<String, String> {
    let (mut plain, mut open, mut rest) = (String::new(), Vec::new(), html);
    while let Some(place) = rest.find(['<', '>', '&']) {
        plain.push_str(&rest[..place]);
        let (special, behind) = (&rest[place..=place], &rest[place + 1..]);
        match special {
            "<" => {
                let (tag, behind) = behind.split_once('>').ok_or("can't parse entities: a tag without an end")?;
                let name = tag.split(' ').next().unwrap_or_default();
                if let Some(closed) = name.strip_prefix('/') {
                    must(open.pop() == Some(closed), format!("can't parse entities: </{closed}>"))?;
                } else if name == "br" {
                    plain.push('\n');
                } else {
                    must(tags.contains(&name), format!("can't parse entities: <{tag}>"))?;
                    let is_ours = tag == name || tag.starts_with("a href=\"https://shop.example/");
                    must(is_ours && tag.matches('"').count() % 2 == 0, format!("a tag with attributes: <{tag}>"))?;
                    open.push(name);
                }
                rest = behind;
            }
            "&" => {
                let (entity, behind) = behind.split_once(';').ok_or("can't parse entities: a bare &")?;
                let meant = [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"')];
                let meant = meant.iter().find(|(name, _)| *name == entity);
                plain.push(meant.ok_or_else(|| format!("can't parse entities: &{entity};"))?.1);
                rest = behind;
            }
            _ => return Err("a bare > in HTML".to_owned()),
        }
    }
    must(open.is_empty(), format!("can't parse entities: {open:?} is open"))?;
    Ok(plain + rest)
}

#[test]
fn telegram_takes_what_is_sent_and_its_errors_are_understood() {
    let error = |description: &str| json!({ "ok": false, "description": description }).to_string();
    let busy = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 17","parameters":{"retry_after":17}}"#;
    let moved = r#"{"ok":false,"error_code":400,"description":"Bad Request: group chat was upgraded to a supergroup chat","parameters":{"migrate_to_chat_id":-100777}}"#;
    check(
        telegram(),
        &[
            case(400, &error("Bad Request: chat not found"), "misconfigured", "chat not found"),
            case(400, &error("Bad Request: can't parse entities"), "reject", "http-400"),
            case(401, &error("Unauthorized"), "misconfigured", "Unauthorized"),
            case(403, &error("Forbidden: bot was blocked by the user"), "misconfigured", "blocked"),
            case(404, &error("Not Found"), "misconfigured", "Not Found"),
            case(429, busy, "retry", "17000 ms"),
            case(502, "<html>", "retry", "502"),
            // The plugin sends the same message at once to the chat's new id.
            case(400, moved, "done", "telegram -1001234567890: 42"),
        ],
    );
}

pub(super) fn matrix() -> Service {
    Service {
        name: "matrix",
        target: "matrix://{secret:matrix-token}@HOST/!636q39766251:matrix.example",
        secret: ("matrix-token", "syt_canary_bot_1a2b3c"),
        rules: matrix_message,
        taken: || Answer::status(200).body(r#"{"event_id":"$YUwRidLecu"}"#),
        refused: |rule| Answer::status(400).body(json!({ "errcode": "M_BAD_JSON", "error": rule }).to_string()),
        busy: r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests","retry_after_ms":900}"#,
    }
}

fn matrix_message(request: &Request) -> Result<(), String> {
    // https://spec.matrix.org/latest/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid
    let before = "/_matrix/client/v3/rooms/!636q39766251:matrix.example/send/m.room.message/";
    let transaction = request.path.strip_prefix(before).ok_or_else(|| format!("the path is {}", request.path))?;
    must((1..=255).contains(&transaction.len()) && !transaction.contains('/'), "no transaction")?;
    header(request, "authorization", "Bearer syt_canary_bot_1a2b3c")?;
    let body = service::json(request, "PUT")?;
    // https://spec.matrix.org/latest/client-server-api/#size-limits: with room for the server's own fields.
    must(request.body.len() <= 60_000, format!("{} bytes", request.body.len()))?;
    // https://spec.matrix.org/latest/client-server-api/#mtext
    must(body["msgtype"] == "m.text" && body["format"] == "org.matrix.custom.html", "no text with HTML")?;
    text(&body["body"], 60_000)?;
    // https://spec.matrix.org/latest/client-server-api/#definition-mmentions
    must(body["m.mentions"] == Value::Object(serde_json::Map::new()), "somebody may be called")?;
    // https://spec.matrix.org/latest/client-server-api/#mroommessage-msgtypes: tags that clients show.
    html_text(body["formatted_body"].as_str().ok_or("no HTML")?, &["strong", "a"]).map(|_| ())
}

#[test]
fn matrix_takes_what_is_sent_and_its_errors_are_understood() {
    let error = |code: &str| json!({ "errcode": code, "error": "told" }).to_string();
    let busy = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests","retry_after_ms":2345}"#;
    check(
        matrix(),
        &[
            case(401, &error("M_UNKNOWN_TOKEN"), "misconfigured", "M_UNKNOWN_TOKEN"),
            case(403, &error("M_FORBIDDEN"), "misconfigured", "M_FORBIDDEN"),
            case(400, &error("M_BAD_JSON"), "reject", "m-bad-json"),
            case(413, &error("M_TOO_LARGE"), "reject", "m-too-large"),
            case(429, busy, "retry", "2345 ms"),
            case(500, &error("M_UNKNOWN"), "retry", "M_UNKNOWN"),
        ],
    );
}
