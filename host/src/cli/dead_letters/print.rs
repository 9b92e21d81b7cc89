//! Prints dead letters.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::Message;
use dead_letters::browse::Letter;
use dead_letters::json::{as_plain_json, foreign_headers, properties_as_json};
use dead_letters::letter::Summary;
use delivery::{raw_properties, raw_properties_sha256};
use event::pretty_json::indent;
use event::text::printable;
use event::text::shown;
use serde_json::json;
use serde_json::value::RawValue;

use crate::cli::command::write_table;

/// Maximum characters of a reason in a list.
const REASON_CHARACTERS_MAX: usize = 60;
const HEADINGS: [&str; 7] = ["ID", "DIED", "PLUGIN", "EVENT TYPE", "EVENT ID", "CODE", "REASON"];

pub(super) fn list(letters: &[Letter], json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        for letter in letters {
            serde_json::to_writer(&mut out, &letter.summary)?;
            writeln!(out)?;
        }
        return out.flush();
    }
    let rows: Vec<_> = letters.iter().map(row).collect();
    write_table(&mut out, HEADINGS, &rows, |_| Vec::new())?;
    out.flush()
}

fn row(letter: &Letter) -> [String; 7] {
    let summary = &letter.summary;
    let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), shown);
    let reason: String = shown(&summary.reason).chars().take(REASON_CHARACTERS_MAX).collect();
    // Cut the fraction of a second.
    let died = summary.last_at.as_deref().and_then(|time| time.split('.').next());
    [
        summary.id.clone(),
        died.map_or_else(|| "-".to_owned(), |died| format!("{died}Z")),
        or_dash(&summary.plugin),
        or_dash(&summary.event_type),
        or_dash(&summary.event_id),
        shown(&summary.code),
        reason,
    ]
}

pub(super) fn show(letter: &Letter, json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        writeln!(out, "{}", as_json(&letter.summary, &letter.message))?;
        return out.flush();
    }
    let (summary, message) = (&letter.summary, &letter.message);
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for (name, value) in [
        ("letter", summary.id.clone()),
        ("plugin", or_dash(&summary.plugin)),
        ("event type", or_dash(&summary.event_type)),
        ("event id", or_dash(&summary.event_id)),
        ("replaces", or_dash(&summary.replaces)),
        ("given up", summary.given_up.clone()),
        ("code", summary.code.clone()),
        ("reason", summary.reason.clone()),
        ("attempts", format!("{} in round {}", summary.attempts, summary.round)),
        ("first seen", or_dash(&summary.first_at)),
        ("last tried", or_dash(&summary.last_at)),
        ("came by", format!("exchange {:?}, routing key {:?}", summary.exchange, summary.routing_key)),
    ] {
        line(&mut out, name, &value)?;
    }
    for round in &summary.history {
        line(&mut out, "earlier", round)?;
    }
    if let serde_json::Value::Object(properties) = properties_as_json(message) {
        for (name, value) in properties {
            line(&mut out, "property", &format!("{name}: {}", plain(&value)))?;
        }
    }
    for (name, value) in foreign_headers(message) {
        line(&mut out, "header", &format!("{name}: {}", plain(&as_plain_json(value))))?;
    }
    if let Some(raw) = raw_properties(message) {
        line(&mut out, "as it came", &format!("all properties, {} bytes of AMQP 0-9-1: see --json", raw.len()))?;
    }
    if let Some(digest) = raw_properties_sha256(message) {
        line(&mut out, "as it came", &format!("all properties are the body of the raw-properties letter {digest}"))?;
    }
    writeln!(out)?;
    let body = match serde_json::from_slice::<&RawValue>(&message.body) {
        Ok(json) => indent(json),
        Err(_) => String::from_utf8_lossy(&message.body).into_owned(),
    };
    for line in body.lines() {
        writeln!(out, "{}", printable(line))?;
    }
    out.flush()
}

fn line(out: &mut impl Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "{name:<12}{}", shown(value))
}

/// Formats a JSON value; strings without quotes.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Formats everything about a letter as JSON. The body is `data` if it is JSON (as written), else `text`, else `bytes`.
fn as_json(summary: &Summary, message: &Message) -> String {
    let headers: serde_json::Map<_, _> =
        foreign_headers(message).map(|(name, value)| (name.clone(), as_plain_json(value))).collect();
    let (name, body) = match (serde_json::from_slice::<&RawValue>(&message.body), std::str::from_utf8(&message.body)) {
        (Ok(json), _) => ("data", json.get().to_owned()),
        (Err(_), Ok(text)) => ("text", json!(text).to_string()),
        (Err(_), Err(_)) => ("bytes", json!(&message.body[..]).to_string()),
    };
    let (letter, properties) = (json!(summary), properties_as_json(message));
    // Insert the data as written; parsing it into a JSON value would change large numbers.
    let headers = serde_json::Value::Object(headers);
    let raw = match (raw_properties(message), raw_properties_sha256(message)) {
        (Some(raw), _) => format!(r#""raw_properties_base64":"{}","#, STANDARD.encode(raw)),
        (None, Some(digest)) => format!(r#""raw_properties_sha256":{},"#, json!(digest)),
        (None, None) => String::new(),
    };
    format!(r#"{{"letter":{letter},"properties":{properties},"headers":{headers},{raw}"{name}":{body}}}"#)
        .replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use broker::Value;
    use delivery::DeliveryHeaders;

    use super::*;

    fn letter(body: impl Into<bytes::Bytes>) -> (Summary, Message) {
        let mut message = Message::json(body);
        message.properties.headers.insert("x-foreign".to_owned(), Value::List(vec![Value::I8(1), "a".into()]));
        message.properties.headers.insert("x-notify-first-at".to_owned(), Value::I64(1));
        (Summary::new(&DeliveryHeaders::read(&message).unwrap(), &message), message)
    }

    #[test]
    fn a_body_is_shown_as_what_it_is() {
        for (body, shown) in [
            (&b"{\"n\":\n1.00000000000000000001}"[..], r#""data":{"n": 1.00000000000000000001}}"#),
            (b"{\"n\":", r#""text":"{\"n\":"}"#),
            (b"a\nb", r#""text":"a\nb"}"#),
            (b"\xff\x00", r#""bytes":[255,0]}"#),
        ] {
            let (summary, message) = letter(body);
            let json = as_json(&summary, &message);
            assert!(json.ends_with(shown), "{json}");
            assert!(json.contains(r#""headers":{"x-foreign":[1,"a"]}"#), "{json}");
            assert!(!json.contains('\n'), "one line");
            serde_json::from_str::<&RawValue>(&json).unwrap();
        }
    }
}
