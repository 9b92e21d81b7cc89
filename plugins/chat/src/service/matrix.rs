//! Matrix, as a user with an access token, in one room.

use serde_json::{Value, json};

use crate::address::{Address, Credential, credential, segment};
use crate::exchange::{Request, SendOutcome, ServiceReply, code};
use crate::fit::{Escape, escaped, html};
use crate::message::{Message, Text};
use crate::service::Service;

/// Maximum bytes of the content. An event may have 65,536 bytes including the server's additions
/// (<https://spec.matrix.org/latest/client-server-api/#size-limits>).
const CONTENT_BYTES_MAX: usize = 48 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    url: String,
    room: String,
    token: Credential,
    /// Whether the message alerts people, e.g. by a sound.
    is_loud: bool,
}

impl Matrix {
    /// Parses `matrixs://{secret:NAME}@HOST/!ROOM`.
    pub(crate) fn parse(mut address: Address) -> Result<Self, String> {
        const EXPECTED: &str = "expected matrixs://{secret:NAME}@HOST/!ROOM";
        let [room] = &address.segments[..] else { return Err(EXPECTED.to_owned()) };
        if !room.starts_with('!') {
            return Err(format!("{room:?} is no id of a room: it begins with !, and stands in the room's settings"));
        }
        let room = room.clone();
        let user = address.user.take();
        let Some(token) = user.filter(|user| !user.contains(':') || user.starts_with("{secret:")) else {
            return Err(format!("{EXPECTED}: an access token, not a name and a password"));
        };
        let (url, token) = (address.origin("matrix"), credential(&token, "Bearer ")?);
        let is_loud = match address.take("msgtype").as_deref() {
            None | Some("text") => true,
            Some("notice") => false,
            Some(other) => return Err(format!("msgtype: expected text or notice, got {other:?}")),
        };
        address.finish("msgtype, format and severity")?;
        Ok(Self { url, room, token, is_loud })
    }

    /// Returns the transaction id, by which servers detect repetitions. Some compare it across rooms, so
    /// it includes the room.
    fn transaction(&self, key: &str) -> String {
        // FNV-1a.
        let hash = self
            .room
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("{key}-{hash:016x}")
    }
}

impl Service for Matrix {
    fn label(&self) -> String {
        format!("matrix {}", self.room)
    }

    fn escape(&self) -> Escape {
        html
    }

    /// The transaction id identifies repetitions.
    fn recognises_repetitions(&self) -> bool {
        true
    }

    fn request(&self, message: &Message, key: &str) -> Request {
        let form = |message: &Message| {
            let text = format!("{}\n{}", message.title, message.plain());
            json!({
                "msgtype": if self.is_loud { "m.text" } else { "m.notice" },
                "body": text.trim_end(),
                "format": "org.matrix.custom.html",
                "formatted_body": formatted(message),
                // Mention nobody, whatever the text looks like
                // (<https://spec.matrix.org/latest/client-server-api/#user-and-room-mentions>).
                "m.mentions": {},
            })
            .to_string()
            .into_bytes()
        };
        Request {
            // <https://spec.matrix.org/latest/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid>
            method: "PUT",
            url: format!(
                "{}/_matrix/client/v3/rooms/{}/send/m.room.message/{}",
                self.url,
                segment(&self.room),
                segment(&self.transaction(key))
            ),
            authorization: Some(("authorization", self.token.clone())),
            body: message.within(CONTENT_BYTES_MAX, form),
        }
    }

    fn judge(&self, reply: &ServiceReply) -> SendOutcome {
        // <https://spec.matrix.org/latest/client-server-api/#standard-error-response>
        let answer: Value = reply.json();
        if reply.is_success() {
            return SendOutcome::Sent(answer["event_id"].as_str().map(str::to_owned));
        }
        let Some(word) = answer["errcode"].as_str() else { return reply.by_status() };
        let told = answer["error"].as_str().unwrap_or_default();
        let reason = format!("it answers {}: {word} {told}", reply.status).trim_end().to_owned();
        match word {
            "M_LIMIT_EXCEEDED" => {
                // The header replaces this member, which is in milliseconds.
                let after = answer["retry_after_ms"].as_u64().map(|millis| millis.min(86_400_000));
                SendOutcome::Retry { reason, after: reply.retry_after.or(after) }
            }
            "M_UNKNOWN_TOKEN"
            | "M_MISSING_TOKEN"
            | "M_FORBIDDEN"
            | "M_NOT_FOUND"
            | "M_UNRECOGNIZED"
            | "M_USER_DEACTIVATED"
            | "M_USER_SUSPENDED"
            | "M_USER_LOCKED"
            | "M_GUEST_ACCESS_FORBIDDEN"
            | "M_CONSENT_NOT_GIVEN" => SendOutcome::Misconfigured(reason),
            "M_TOO_LARGE" | "M_BAD_JSON" | "M_NOT_JSON" | "M_INVALID_PARAM" => {
                SendOutcome::Reject { code: code(word), reason }
            }
            _ => reply.by_status_telling(&format!("{word} {told}")),
        }
    }
}

fn formatted(message: &Message) -> String {
    let escape = |text: &str| escaped(text, html).replace('\n', "<br>");
    let title = escape(&message.title);
    let mut out = match &message.link {
        Some(link) => format!("<strong><a href=\"{}\">{title}</a></strong>", escape(link)),
        None => format!("<strong>{title}</strong>"),
    };
    match &message.text {
        Text::Plain(text) | Text::Markup(text) if text.trim().is_empty() => {}
        Text::Markup(text) => out.extend(["<br>", text]),
        Text::Plain(text) => out.extend(["<br>", &escape(text.trim_end())]),
    }
    for field in &message.fields {
        out.extend(["<br><strong>", &escape(&field.label), ":</strong> ", &escape(&field.value)]);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::tests::{any_message, message};

    fn matrix(url: &str) -> Matrix {
        Matrix::parse(Address::parse(url).unwrap()).unwrap()
    }

    #[test]
    fn a_room_is_addressed() {
        let room = matrix("matrixs://{secret:m}@matrix.example:8448/!abc:matrix.example?msgtype=notice");
        let request = room.request(&message(), "key");
        let before = "https://matrix.example:8448/_matrix/client/v3/rooms/!abc:matrix.example/send/m.room.message/key-";
        assert!(request.url.starts_with(before), "{}", request.url);
        assert_eq!(request.url, room.request(&message(), "key").url, "a repetition is recognised");
        assert_ne!(request.url, room.request(&message(), "yek").url);
        let other = matrix("matrixs://t@matrix.example:8448/!abd:matrix.example");
        assert_ne!(room.transaction("key"), other.transaction("key"));
        let secret = Credential::Secret { prefix: "Bearer ", name: "m".to_owned() };
        assert_eq!((request.method, request.authorization), ("PUT", Some(("authorization", secret))));
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(sent["msgtype"], "m.notice");
        for wrong in
            ["matrixs://a/!b", "matrixs://t@a/#b", "matrixs://u:p@a/!b", "matrixs://t@a", "matrixs://t@a/!b?x=1"]
        {
            assert!(Matrix::parse(Address::parse(wrong).unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_message_is_text_and_html() {
        let request = matrix("matrixs://t@a/!b").request(&message(), "key");
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(sent["body"], "🛒 New order: iPhone 15\na <b> & *c*\nOrder: 4711\nPrice: 1999.90 EUR");
        assert_eq!(
            sent["formatted_body"],
            "<strong><a href=\"https://shop.example/orders/4711\">🛒 New order: iPhone 15</a></strong>\
             <br>a &lt;b&gt; &amp; *c*<br><strong>Order:</strong> 4711<br><strong>Price:</strong> 1999.90 EUR"
        );
        assert_eq!((&sent["m.mentions"], &sent["msgtype"]), (&json!({}), &json!("m.text")));
    }

    #[test]
    fn matrix_says_what_to_do() {
        let check = |status, retry_after, body: &str, expected: &str| {
            let reply = ServiceReply { status, retry_after, body: body.as_bytes().to_vec() };
            let verdict = format!("{:?}", matrix("matrixs://t@a/!b").judge(&reply));
            assert!(verdict.starts_with(expected) || verdict.ends_with(expected), "{body}: {verdict}");
        };
        check(200, None, r#"{"event_id":"$1"}"#, "Sent(Some(\"$1\"))");
        let limited = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests","retry_after_ms":1234}"#;
        check(429, None, limited, "after: Some(1234) }");
        check(429, Some(2000), limited, "after: Some(2000) }");
        check(
            401,
            None,
            r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Invalid token"}"#,
            "Misconfigured(\"it answers 401: M_UNKNOWN_TOKEN Invalid token\")",
        );
        check(403, None, r#"{"errcode":"M_FORBIDDEN","error":"not in room"}"#, "Misconfigured");
        check(413, None, r#"{"errcode":"M_TOO_LARGE","error":"event too large"}"#, "Reject { code: \"m-too-large\"");
        check(400, None, r#"{"errcode":"M_BAD_JSON"}"#, "Reject");
        check(500, None, r#"{"errcode":"M_UNKNOWN"}"#, "Retry");
        check(502, None, "<html>", "Retry");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_message_breaks_the_limit_or_calls_anybody(message in any_message()) {
            let request = matrix("matrixs://t@a/!b").request(&message, "key");
            prop_assert!(request.body.len() <= CONTENT_BYTES_MAX);
            let sent: Value = serde_json::from_slice(&request.body).unwrap();
            prop_assert_eq!(&sent["m.mentions"], &json!({}));
            let formatted = sent["formatted_body"].as_str().unwrap();
            for tag in formatted.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
                let is_ours = matches!(tag, "strong" | "/strong" | "br" | "/a") || tag.starts_with("a href=\"https://shop.example/");
                prop_assert!(is_ours, "{}", tag);
            }
        }
    }
}
