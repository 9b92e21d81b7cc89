//! Discord, by a webhook: one embed that mentions nobody.

use serde_json::{Value, json};

use crate::address::{Address, query, segment};
use crate::exchange::{Request, SendOutcome, ServiceReply, code, millis};
use crate::fit::{Escape, Room, Unit, markdown};
use crate::message::{Message, Text};
use crate::service::{Service, post};

// <https://docs.discord.com/developers/resources/message#embed-object-embed-limits>
const TITLE_MAX: usize = 256;
const DESCRIPTION_MAX: usize = 4096;
const FIELDS_MAX: usize = 25;
const NAME_MAX: usize = 256;
const VALUE_MAX: usize = 1024;
const EMBED_MAX: usize = 6000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discord {
    url: String,
}

impl Discord {
    pub(crate) fn parse(mut address: Address) -> Result<Self, String> {
        let [webhook, token] = address.parts()[..] else {
            return Err("expected discord://WEBHOOK_ID/{secret:NAME}".to_owned());
        };
        let path = format!("{}/{}", segment(webhook), segment(token));
        let endpoint = address.endpoint("https://discord.com")?;
        // Without `wait`, Discord does not report an error in the message.
        let mut url = format!("{endpoint}/api/webhooks/{path}?wait=true");
        if let Some(thread) = address.take("thread_id").or_else(|| address.take("thread")) {
            url.push_str("&thread_id=");
            url.push_str(&query(&thread));
        }
        address.finish("thread, endpoint, format and severity")?;
        Ok(Self { url })
    }

    /// Parses an `https` URL with `/api/webhooks/ID/TOKEN`, with or without a version.
    pub(crate) fn of_url(mut address: Address) -> Result<Self, String> {
        let at = address.segments.iter().position(|segment| segment == "webhooks").unwrap_or(address.segments.len());
        let parts: Vec<_> = address.segments.iter().skip(at + 1).cloned().collect();
        let [webhook, token] = &parts[..] else {
            return Err("expected https://discord.com/api/webhooks/ID/{secret:NAME}".to_owned());
        };
        address.take("wait");
        Self::parse(Address { host: webhook.clone(), segments: vec![token.clone()], ..address })
    }
}

fn embed(message: &Message) -> Value {
    let mut room = Room::new(EMBED_MAX, Unit::Utf16, markdown);
    let mut embed = json!({ "title": room.take(&message.title, TITLE_MAX), "color": message.severity.color() });
    let description = match &message.text {
        Text::Markup(text) if Unit::Utf16.size(text) <= DESCRIPTION_MAX && room.takes(text) => text.clone(),
        Text::Plain(text) | Text::Markup(text) => room.take(text, DESCRIPTION_MAX),
    };
    if !description.trim().is_empty() {
        embed["description"] = json!(description);
    }
    let mut fields = Vec::new();
    for field in message.fields.iter().take(FIELDS_MAX) {
        let (name, value) = (room.take(&field.label, NAME_MAX), room.take(&field.value, VALUE_MAX));
        if name.is_empty() || value.is_empty() {
            break;
        }
        fields.push(json!({ "name": name, "value": value, "inline": true }));
    }
    embed["fields"] = json!(fields);
    if let Some(link) = &message.link {
        embed["url"] = json!(link);
    }
    embed
}

impl Service for Discord {
    fn label(&self) -> String {
        "discord".to_owned()
    }

    fn escape(&self) -> Escape {
        markdown
    }

    fn request(&self, message: &Message, _key: &str) -> Request {
        // <https://docs.discord.com/developers/resources/message#allowed-mentions-object>
        let body = json!({ "embeds": [embed(message)], "allowed_mentions": { "parse": [] } });
        post(self.url.clone(), body.to_string().into_bytes())
    }

    fn judge(&self, reply: &ServiceReply) -> SendOutcome {
        // <https://docs.discord.com/developers/topics/opcodes-and-status-codes#json>
        const INVALID_FORM_BODY: u64 = 50035;
        let answer = reply.json();
        if reply.is_success() {
            return SendOutcome::Sent(answer["id"].as_str().map(str::to_owned));
        }
        match (reply.status, answer["code"].as_u64()) {
            (429, _) => {
                // <https://docs.discord.com/developers/topics/rate-limits>: in seconds, with decimals.
                let after = millis(&answer["retry_after"]).or(reply.retry_after);
                SendOutcome::Retry { reason: format!("it answers 429: {}", reply.told()), after }
            }
            (400, Some(INVALID_FORM_BODY)) => SendOutcome::Reject {
                code: code("invalid-form-body"),
                reason: format!("it answers 400: {}", reply.told()),
            },
            _ => reply.by_status(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::tests::{any_message, message};

    fn discord(url: &str) -> Discord {
        Discord::parse(Address::parse(url).unwrap()).unwrap()
    }

    #[test]
    fn a_webhook_is_addressed() {
        let hook = discord("discord://123/{secret:discord-token}");
        assert_eq!(hook.url, "https://discord.com/api/webhooks/123/{secret:discord-token}?wait=true");
        for native in ["api", "api/v10"] {
            let url = format!("https://discord.com/{native}/webhooks/123/{{secret:discord-token}}");
            assert_eq!(Discord::of_url(Address::parse(&url).unwrap()), Ok(hook.clone()));
        }
        assert!(discord("discord://1/x?thread=7").url.ends_with("?wait=true&thread_id=7"));
        for wrong in ["discord://1", "discord://1/x/y", "discord://1/x?y=1"] {
            assert!(Discord::parse(Address::parse(wrong).unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_message_is_an_embed() {
        let body: Value = serde_json::from_slice(&discord("discord://1/x").request(&message(), "key").body).unwrap();
        let embed = &body["embeds"][0];
        assert_eq!(embed["title"], "🛒 New order\\: iPhone 15");
        assert_eq!(embed["description"], "a \\<b\\> \\& \\*c\\*");
        assert_eq!(embed["fields"][1], json!({"name": "Price", "value": "1999\\.90 EUR", "inline": true}));
        assert_eq!(embed["url"], "https://shop.example/orders/4711");
        let mut marked = message();
        marked.text = Text::Markup("**x**".to_owned());
        let body: Value = serde_json::from_slice(&discord("discord://1/x").request(&marked, "key").body).unwrap();
        assert_eq!(body["embeds"][0]["description"], "**x**");
    }

    #[test]
    fn discord_says_what_to_do() {
        let check = |status, body: &str, expected: &str| {
            let reply = ServiceReply { status, retry_after: Some(9000), body: body.as_bytes().to_vec() };
            let verdict = format!("{:?}", discord("discord://1/x").judge(&reply));
            assert!(verdict.starts_with(expected) || verdict.ends_with(expected), "{body}: {verdict}");
        };
        check(200, r#"{"id":"77"}"#, "Sent(Some(\"77\"))");
        check(204, "", "Sent(None)");
        check(
            429,
            r#"{"message":"You are being rate limited.","retry_after":64.57,"global":false}"#,
            "after: Some(64570) }",
        );
        check(429, "error code: 1015", "after: Some(9000) }");
        check(400, r#"{"code":50035,"message":"Invalid Form Body"}"#, "Reject { code: \"invalid-form-body\"");
        check(404, r#"{"code":10015,"message":"Unknown Webhook"}"#, "Misconfigured");
        check(401, r#"{"code":50027,"message":"Invalid Webhook Token"}"#, "Misconfigured");
        check(502, "<html>", "Retry");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_message_breaks_a_limit_or_calls_anybody(message in any_message()) {
            let body: Value = serde_json::from_slice(&discord("discord://1/x").request(&message, "key").body).unwrap();
            prop_assert_eq!(&body["allowed_mentions"], &json!({"parse": []}));
            let embed = &body["embeds"][0];
            let fields = embed["fields"].as_array().unwrap();
            let mut texts = vec![(&embed["title"], TITLE_MAX)];
            texts.extend(embed.get("description").map(|text| (text, DESCRIPTION_MAX)));
            for field in fields {
                texts.extend([(&field["name"], NAME_MAX), (&field["value"], VALUE_MAX)]);
            }
            let mut all = 0;
            for (text, max) in texts {
                let text = text.as_str().unwrap();
                let size = text.encode_utf16().count();
                prop_assert!(size > 0 && size <= max);
                all += size;
            }
            prop_assert!(all <= EMBED_MAX && fields.len() <= FIELDS_MAX);
        }
    }
}
