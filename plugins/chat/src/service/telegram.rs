//! Telegram, as a bot.
//!
//! A name after `@` is mentioned anywhere in a text, so an invisible character goes between. Otherwise the text is
//! HTML, in which only `&`, `<` and `>` have a meaning.

use serde_json::{Value, json};

use crate::address::{Address, segment};
use crate::exchange::{Request, SendOutcome, ServiceReply, millis};
use crate::fit::{Escape, Room, Unit, at, escaped, html};
use crate::message::{Message, Text};
use crate::service::{Service, post};

/// Maximum length of the text. Telegram counts after parsing entities; counting the raw text is never too little
/// (<https://core.telegram.org/bots/api#sendmessage>).
const TEXT_MAX: usize = 4096;
const TITLE_MAX: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Telegram {
    url: String,
    chat: Chat,
    topic: Option<i64>,
    is_silent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Chat {
    Id(i64),
    /// Name with the `@`.
    Channel(String),
}

impl Telegram {
    /// Parses `tgram://{secret:NAME}/CHAT[:TOPIC]`.
    pub(crate) fn parse(mut address: Address) -> Result<Self, String> {
        let [token, chat] = address.parts()[..] else {
            return Err("expected tgram://{secret:NAME}/CHAT_ID or tgram://{secret:NAME}/@CHANNEL".to_owned());
        };
        let (chat, topic) = chat.split_once(':').map_or((chat, None), |(chat, topic)| (chat, Some(topic)));
        let number = |text: &str, what| text.parse().map_err(|_| format!("{text:?} is no {what}"));
        let (chat, mut topic) = (
            match chat.strip_prefix('@') {
                Some(_) => Chat::Channel(chat.to_owned()),
                None => Chat::Id(number(chat, "id of a chat: expected a number, or @CHANNEL")?),
            },
            topic.map(|topic| number(topic, "id of a topic")).transpose()?,
        );
        let path = format!("/bot{}/sendMessage", segment(token));
        let url = address.endpoint("https://api.telegram.org")? + &path;
        if let Some(option) = address.take("topic") {
            topic = Some(number(&option, "id of a topic")?);
        }
        let is_silent = address.take("silent").is_some_and(|silent| matches!(&*silent, "yes" | "true" | "1"));
        address.finish("topic, silent, endpoint, format and severity")?;
        Ok(Self { url, chat, topic, is_silent })
    }

    fn chat(&self) -> Value {
        match &self.chat {
            Chat::Id(id) => json!(id),
            Chat::Channel(name) => json!(name),
        }
    }
}

fn escape(before: Option<char>, character: char, out: &mut String) {
    match character {
        '@' => at(before, out),
        other => html(before, other, out),
    }
}

fn text(message: &Message) -> String {
    let mut room = Room::new(TEXT_MAX, Unit::Utf16, escape);
    let link = message.link.as_ref().map(|link| format!("\n<a href=\"{}\">Open</a>", escaped(link, html)));
    let link = link.filter(|link| Unit::Utf16.size(link) <= TEXT_MAX / 4 && room.takes(link)).unwrap_or_default();
    let mut text = String::new();
    if room.takes("<b></b>") {
        text = format!("<b>{}</b>", room.take(&message.title, TITLE_MAX));
    }
    let body = match &message.text {
        Text::Markup(markup) if room.takes(&format!("\n{markup}")) => markup.clone(),
        Text::Plain(plain) | Text::Markup(plain) if room.takes("\n") => room.take(plain.trim_end(), TEXT_MAX),
        Text::Plain(_) | Text::Markup(_) => String::new(),
    };
    if !body.is_empty() {
        text.push('\n');
        text.push_str(&body);
    }
    for field in &message.fields {
        if !room.takes("\n<b>:</b> ") {
            break;
        }
        let (label, value) = (room.take(&field.label, TEXT_MAX), room.take(&field.value, TEXT_MAX));
        if label.is_empty() || value.is_empty() {
            break;
        }
        text.extend(["\n<b>", &label, ":</b> ", &value]);
    }
    text + &link
}

impl Service for Telegram {
    fn label(&self) -> String {
        match &self.chat {
            Chat::Id(id) => format!("telegram {id}"),
            Chat::Channel(name) => format!("telegram {name}"),
        }
    }

    fn escape(&self) -> Escape {
        escape
    }

    fn request(&self, message: &Message, _key: &str) -> Request {
        let mut body = json!({
            "chat_id": self.chat(),
            "text": text(message),
            "parse_mode": "HTML",
            "link_preview_options": { "is_disabled": true },
        });
        if let Some(topic) = self.topic {
            body["message_thread_id"] = json!(topic);
        }
        if self.is_silent {
            body["disable_notification"] = json!(true);
        }
        post(self.url.clone(), body.to_string().into_bytes())
    }

    fn judge(&self, reply: &ServiceReply) -> SendOutcome {
        // <https://core.telegram.org/bots/api#making-requests>, <https://core.telegram.org/bots/api#responseparameters>
        let answer = reply.json();
        if answer["ok"].as_bool() == Some(true) {
            return SendOutcome::Sent(answer["result"]["message_id"].as_i64().map(|id| id.to_string()));
        }
        let Some(told) = answer["description"].as_str() else {
            return match reply.by_status() {
                SendOutcome::Sent(_) => {
                    let reason = "it answers 200 with something that is not from Telegram".to_owned();
                    SendOutcome::Retry { reason, after: None }
                }
                other => other,
            };
        };
        let reason = format!("it answers {}: {told}", reply.status);
        if let Some(chat) = answer["parameters"]["migrate_to_chat_id"].as_i64() {
            return SendOutcome::Moved(chat);
        }
        let says = |words: &[&str]| words.iter().any(|word| told.to_ascii_lowercase().contains(word));
        match reply.status {
            429 => {
                SendOutcome::Retry { reason, after: millis(&answer["parameters"]["retry_after"]).or(reply.retry_after) }
            }
            400 if says(&[
                "chat not found",
                "not enough rights",
                "thread not found",
                "topic_",
                "chat_id",
                "need administrator",
                "group is deactivated",
                "chat_write_forbidden",
                "have no rights",
            ]) =>
            {
                SendOutcome::Misconfigured(reason)
            }
            _ => reply.by_status_telling(told),
        }
    }

    fn moved(&self, to: i64) -> Option<Box<dyn Service>> {
        Some(Box::new(Self { chat: Chat::Id(to), ..self.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::tests::{any_message, message};

    fn telegram(url: &str) -> Telegram {
        Telegram::parse(Address::parse(url).unwrap()).unwrap()
    }

    fn body(telegram: &Telegram, message: &Message) -> Value {
        serde_json::from_slice(&telegram.request(message, "key").body).unwrap()
    }

    #[test]
    fn a_chat_is_addressed() {
        let chat = telegram("tgram://{secret:telegram-token}/-100123:7?silent=yes");
        assert_eq!(chat.url, "https://api.telegram.org/bot{secret:telegram-token}/sendMessage");
        let sent = body(&chat, &message());
        assert_eq!((&sent["chat_id"], &sent["message_thread_id"]), (&json!(-100_123), &json!(7)));
        assert_eq!(sent["disable_notification"], true);
        assert_eq!(body(&telegram("tgram://123:abc/@news"), &message())["chat_id"], "@news");
        assert_eq!(telegram("tgram://123:abc/1").url, "https://api.telegram.org/bot123:abc/sendMessage");
        for wrong in ["tgram://x", "tgram://x/general", "tgram://x/1:y", "tgram://x/1?y=1"] {
            assert!(Telegram::parse(Address::parse(wrong).unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_message_is_html() {
        let sent = body(&telegram("tgram://x/1"), &message());
        assert_eq!(
            sent["text"],
            "<b>🛒 New order: iPhone 15</b>\na &lt;b&gt; &amp; *c*\n<b>Order:</b> 4711\n<b>Price:</b> 1999.90 EUR\n\
             <a href=\"https://shop.example/orders/4711\">Open</a>"
        );
        assert_eq!(sent["parse_mode"], "HTML");
        let mut called = message();
        called.text = Text::Plain("@ann, ann@example.com".to_owned());
        assert!(
            body(&telegram("tgram://x/1"), &called)["text"].as_str().unwrap().contains("@\u{200b}ann, ann@example.com")
        );
        called.text = Text::Markup("<i>x</i>".to_owned());
        assert!(body(&telegram("tgram://x/1"), &called)["text"].as_str().unwrap().contains("\n<i>x</i>\n"));
    }

    #[test]
    fn telegram_says_what_to_do() {
        let check = |status, body: &str, expected: &str| {
            let reply = ServiceReply { status, retry_after: None, body: body.as_bytes().to_vec() };
            let verdict = format!("{:?}", telegram("tgram://x/1").judge(&reply));
            assert!(verdict.starts_with(expected) || verdict.ends_with(expected), "{body}: {verdict}");
        };
        check(200, r#"{"ok":true,"result":{"message_id":42}}"#, "Sent(Some(\"42\"))");
        check(
            429,
            r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 5","parameters":{"retry_after":5}}"#,
            "after: Some(5000) }",
        );
        check(
            400,
            r#"{"ok":false,"error_code":400,"description":"Bad Request: group chat was upgraded to a supergroup chat","parameters":{"migrate_to_chat_id":-1001}}"#,
            "Moved(-1001)",
        );
        check(400, r#"{"ok":false,"description":"Bad Request: chat not found"}"#, "Misconfigured");
        check(400, r#"{"ok":false,"description":"Bad Request: message thread not found"}"#, "Misconfigured");
        check(400, r#"{"ok":false,"description":"Bad Request: can't parse entities"}"#, "Reject { code: \"http-400\"");
        check(401, r#"{"ok":false,"description":"Unauthorized"}"#, "Misconfigured");
        check(403, r#"{"ok":false,"description":"Forbidden: bot was blocked by the user"}"#, "Misconfigured");
        check(404, r#"{"ok":false,"description":"Not Found"}"#, "Misconfigured");
        check(502, "<html>", "Retry");
        check(200, "<html>", "Retry");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_message_breaks_the_limit_or_calls_anybody(message in any_message()) {
            let sent = body(&telegram("tgram://x/1"), &message);
            let text = sent["text"].as_str().unwrap();
            prop_assert!(text.encode_utf16().count() <= TEXT_MAX);
            // All tags are ours, and closed.
            let tags: Vec<_> = text.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()).collect();
            for pair in tags.chunks(2) {
                prop_assert!(pair == ["b", "/b"] || (pair[0].starts_with("a href=\"https://shop.example/") && pair[1] == "/a"), "{:?}", pair);
            }
            for (at, _) in text.match_indices('@') {
                let (before, after) = (text[..at].chars().next_back(), text[at + 1..].chars().next());
                let is_within = before.is_some_and(|before| before.is_ascii_alphanumeric());
                prop_assert!(is_within || after == Some('\u{200b}'), "{}", text);
            }
        }
    }
}
