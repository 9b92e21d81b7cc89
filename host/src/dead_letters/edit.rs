//! Editing an event's data by hand.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, Write as _};
use std::process::Command;

use anyhow::{Context as _, bail};
use broker::{Message, Value};
use bytes::Bytes;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::delivery::clock::now;
use crate::delivery::{Recipient, Trail};

/// The event with the data that the user wrote; `None` if it was left as it was.
pub(super) fn edit(trail: &Trail, message: &Message) -> anyhow::Result<Option<(Trail, Message)>> {
    let Some(recipient) = &trail.recipient else {
        bail!("this message was no event, so that it has no data to edit; `replay` gives it back as it is");
    };
    let body = Body::read(&message.body)?;
    let before = body.pretty()?;
    let after = open_editor(&before)?;
    if after.trim() == before.trim() {
        return Ok(None);
    }
    let data: Box<RawValue> =
        serde_json::from_str(&after).context("what you wrote is no JSON; the letter stays as it is")?;
    let id = Uuid::now_v7().to_string();
    Ok(Some(renew(trail, recipient, message, body, data, &id)))
}

/// The message's body: plain data, or a structured `CloudEvent` with data in it.
enum Body {
    Plain(Box<RawValue>),
    CloudEvent(BTreeMap<String, Box<RawValue>>),
}

impl Body {
    fn read(body: &Bytes) -> anyhow::Result<Self> {
        if let Ok(members) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(body)
            && members.contains_key("specversion")
        {
            return Ok(Self::CloudEvent(members));
        }
        serde_json::from_slice(body).map(Self::Plain).context("its body is no JSON, so that it cannot be edited")
    }

    fn pretty(&self) -> anyhow::Result<String> {
        let data = match self {
            Self::Plain(data) => Some(data),
            Self::CloudEvent(members) => members.get("data"),
        };
        let data: serde_json::Value = serde_json::from_str(data.map_or("null", |data| data.get()))?;
        Ok(serde_json::to_string_pretty(&data)? + "\n")
    }
}

/// A new event, with an id of its own, for the same plugin.
fn renew(
    trail: &Trail,
    recipient: &Recipient,
    message: &Message,
    body: Body,
    data: Box<RawValue>,
    id: &str,
) -> (Trail, Message) {
    let mut message = message.clone();
    message.body = match body {
        Body::Plain(_) => Bytes::from(data.get().to_owned()),
        Body::CloudEvent(mut members) => {
            members.insert("data".to_owned(), data);
            if let Ok(id) = serde_json::value::to_raw_value(id) {
                members.insert("id".to_owned(), id);
            }
            // Texts as keys and JSON as values can always be written.
            serde_json::to_vec(&members).unwrap_or_default().into()
        }
    };
    message.properties.message_id = Some(id.to_owned());
    for prefix in ["cloudEvents:", "cloudEvents_", "ce-"] {
        let name = format!("{prefix}id");
        if message.properties.headers.contains_key(&name) {
            message.properties.headers.insert(name, Value::from(id));
        }
    }
    let mut trail = trail.clone().next_round(now());
    trail.replaces = Some(recipient.event_id.clone());
    (trail, message)
}

fn open_editor(text: &str) -> anyhow::Result<String> {
    let editor =
        ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok().filter(|editor| !editor.is_empty()));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let mut file = tempfile::Builder::new().prefix("dead-letter-").suffix(".json").tempfile()?;
    file.write_all(text.as_bytes())?;
    file.flush()?;
    // As git and others do: the variable may hold arguments, and is the user's own.
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(file.path())
        .status()
        .with_context(|| format!("cannot start the editor {editor:?}: set $EDITOR"))?;
    if !status.success() {
        bail!("the editor {editor:?} ended with {status}; the letter stays as it is");
    }
    let mut edited = String::new();
    // By its name, for many editors put a new file in its place.
    std::fs::File::open(file.path())?.read_to_string(&mut edited).context("what you wrote is no text")?;
    file.rewind()?;
    Ok(edited)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewed(message: &Message) -> (Trail, Message) {
        let trail = Trail::read(&letter(message)).unwrap();
        let recipient = trail.recipient.clone().unwrap();
        let data = RawValue::from_string("{\"fixed\": true}".to_owned()).unwrap();
        renew(&trail, &recipient, message, Body::read(&message.body).unwrap(), data, "new")
    }

    fn letter(message: &Message) -> Message {
        let mut message = message.clone();
        for (name, value) in [("x-notify-plugin", "email"), ("x-notify-event-id", "old"), ("x-notify-first-at", "1")] {
            message.properties.headers.insert(name.to_owned(), value.into());
        }
        message
    }

    #[test]
    fn plain_data_becomes_a_new_event() {
        let (trail, message) = renewed(&Message::json("{\"order_id\": 1}"));
        assert_eq!(&*message.body, b"{\"fixed\": true}");
        assert_eq!(message.properties.message_id.as_deref(), Some("new"));
        assert_eq!((trail.replaces.as_deref(), trail.attempts), (Some("old"), 0));
    }

    #[test]
    fn a_cloud_event_keeps_all_but_id_and_data() {
        let event = r#"{"specversion":"1.0","id":"old","source":"shop","type":"t","data":{"a":1},"big":1e400}"#;
        let (_, message) = renewed(&Message::json(event));
        let body = std::str::from_utf8(&message.body).unwrap();
        assert_eq!(
            body,
            r#"{"big":1e400,"data":{"fixed": true},"id":"new","source":"shop","specversion":"1.0","type":"t"}"#
        );
    }
}
