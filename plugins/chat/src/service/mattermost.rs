//! Mattermost, by an incoming webhook: one attachment.
//!
//! Mattermost reads Slack's `<…>` before Markdown, so a `\` before it would have no effect.

use serde_json::{Value, json};

use crate::address::{Address, segment};
use crate::exchange::{Request, SendOutcome, ServiceReply};
use crate::fit::{Escape, Unit, at, fit};
use crate::message::{Message, Text};
use crate::service::{Service, post};

/// Maximum length of a text. The limit is that of a post; attachments are stored separately, with a similar limit
/// (<https://developers.mattermost.com/integrate/webhooks/incoming/>).
const TEXT_MAX: usize = 7000;
const TITLE_MAX: usize = 400;
const VALUE_MAX: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mattermost {
    url: String,
    channel: Option<String>,
}

impl Mattermost {
    /// Parses `mmosts://HOST[/PATH]/{secret:NAME}[?channel=NAME]`.
    pub(crate) fn parse(mut address: Address) -> Result<Self, String> {
        let Some((token, path)) = address.segments.split_last() else {
            return Err("expected mmosts://HOST/{secret:NAME}".to_owned());
        };
        let path: String = path.iter().flat_map(|part| ["/".to_owned(), segment(part)]).collect();
        let url = format!("{}{path}/hooks/{}", address.origin("mmost"), segment(token));
        let channel = address.take("channel").map(|channel| channel.trim_start_matches('#').to_owned());
        address.finish("channel, format and severity")?;
        Ok(Self { url, channel })
    }

    /// Parses `https://HOST[/PATH]/hooks/TOKEN`.
    pub(crate) fn of_url(mut address: Address) -> Result<Self, String> {
        let token = address.segments.pop();
        if address.segments.pop().as_deref() != Some("hooks") {
            return Err("expected https://HOST/hooks/{secret:NAME}".to_owned());
        }
        address.segments.extend(token);
        let scheme = if address.scheme == "http" { "mmost" } else { "mmosts" };
        Self::parse(Address { scheme: scheme.to_owned(), ..address })
    }
}

fn escape(before: Option<char>, character: char, out: &mut String) {
    match character {
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '&' => out.push_str("&amp;"),
        '@' => at(before, out),
        other if other.is_ascii_punctuation() => out.extend(['\\', other]),
        other => out.push(other),
    }
}

fn fitted(text: &str, max: usize) -> String {
    fit(text, max, Unit::Utf16, escape)
}

impl Service for Mattermost {
    fn label(&self) -> String {
        match &self.channel {
            Some(channel) => format!("mattermost {channel}"),
            None => "mattermost".to_owned(),
        }
    }

    fn escape(&self) -> Escape {
        escape
    }

    fn request(&self, message: &Message, _key: &str) -> Request {
        // <https://developers.mattermost.com/integrate/reference/message-attachments/>
        let text = match &message.text {
            Text::Markup(text) if Unit::Utf16.size(text) <= TEXT_MAX => text.clone(),
            Text::Plain(text) | Text::Markup(text) => fitted(text, TEXT_MAX),
        };
        let fields: Vec<Value> = message
            .fields
            .iter()
            .map(|field| json!({ "title": field.label, "value": fitted(&field.value, VALUE_MAX), "short": true }))
            .collect();
        let title = fitted(&message.title, TITLE_MAX);
        let mut attachment = json!({
            "fallback": title,
            "color": format!("#{:06x}", message.severity.color()),
            "title": title,
            "text": text,
            "fields": fields,
        });
        if let Some(link) = &message.link {
            attachment["title_link"] = json!(link);
        }
        let mut body = json!({ "attachments": [attachment] });
        if let Some(channel) = &self.channel {
            body["channel"] = json!(channel);
        }
        post(self.url.clone(), body.to_string().into_bytes())
    }

    fn judge(&self, reply: &ServiceReply) -> SendOutcome {
        let answer = reply.json();
        let id = answer["id"].as_str().unwrap_or_default();
        let told = answer["message"].as_str().map_or_else(|| reply.told(), str::to_owned);
        match reply.status {
            // Mattermost answers 400 both for a deleted webhook and for a deleted channel.
            400 if id.contains("web_hook.incoming") || id.contains("webhook.incoming") || told.contains("webhook") => {
                SendOutcome::Misconfigured(format!("it answers 400: {told}"))
            }
            _ => reply.by_status_telling(&told),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::tests::{any_message, message};

    fn mattermost(url: &str) -> Mattermost {
        Mattermost::parse(Address::parse(url).unwrap()).unwrap()
    }

    #[test]
    fn a_webhook_is_addressed() {
        assert_eq!(mattermost("mmost://chat.example:8065/{secret:m}").url, "http://chat.example:8065/hooks/{secret:m}");
        let hook = mattermost("mmosts://chat.example/sub/{secret:m}?channel=%23town");
        assert_eq!((&*hook.url, hook.channel.as_deref()), ("https://chat.example/sub/hooks/{secret:m}", Some("town")));
        let native = Address::parse("https://chat.example/sub/hooks/{secret:m}?channel=town").unwrap();
        assert_eq!(Mattermost::of_url(native), Ok(hook));
        assert!(Mattermost::of_url(Address::parse("https://chat.example/x").unwrap()).is_err());
        assert!(Mattermost::parse(Address::parse("mmosts://chat.example").unwrap()).is_err());
    }

    #[test]
    fn a_message_is_an_attachment() {
        let request = mattermost("mmosts://a/b").request(&message(), "key");
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let attachment = &body["attachments"][0];
        assert_eq!(attachment["title"], "🛒 New order\\: iPhone 15");
        assert_eq!(attachment["text"], "a &lt;b&gt; &amp; \\*c\\*");
        assert_eq!(attachment["fields"][1], json!({"title": "Price", "value": "1999\\.90 EUR", "short": true}));
        assert_eq!(attachment["color"], "#3b82f6");
    }

    #[test]
    fn mattermost_says_what_to_do() {
        let check = |status, body: &str, expected: &str| {
            let reply = ServiceReply { status, retry_after: None, body: body.as_bytes().to_vec() };
            let verdict = format!("{:?}", mattermost("mmosts://a/b").judge(&reply));
            assert!(verdict.starts_with(expected), "{body}: {verdict}");
        };
        check(200, "ok", "Sent");
        check(400, r#"{"id":"web.incoming_webhook.invalid.app_error","message":"Invalid webhook."}"#, "Misconfigured");
        check(
            400,
            r#"{"id":"web.incoming_webhook.parse.app_error","message":"Unable to parse incoming data."}"#,
            "Reject",
        );
        check(403, r#"{"id":"web.incoming_webhook.disabled.app_error","message":"Disabled."}"#, "Misconfigured");
        check(404, r#"{"message":"Couldn't find the channel."}"#, "Misconfigured");
        check(429, "limit exceeded", "Retry");
        check(500, "", "Retry");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_message_breaks_a_limit_or_calls_anybody(message in any_message()) {
            let body: Value = serde_json::from_slice(&mattermost("mmosts://a/b").request(&message, "key").body).unwrap();
            let attachment = &body["attachments"][0];
            let mut texts = vec![(&attachment["title"], TITLE_MAX), (&attachment["text"], TEXT_MAX)];
            texts.extend(attachment["fields"].as_array().unwrap().iter().map(|field| (&field["value"], VALUE_MAX)));
            for (text, max) in texts {
                let text = text.as_str().unwrap();
                prop_assert!(text.encode_utf16().count() <= max && !text.contains('<'));
                for (at, _) in text.match_indices('@') {
                    let (before, after) = (text[..at].chars().next_back(), text[at + 1..].chars().next());
                    let is_within = before.is_some_and(|before| before.is_ascii_alphanumeric());
                    prop_assert!(is_within || after == Some('\u{200b}') || after.is_none() || after == Some('…'), "{}", text);
                }
            }
        }
    }
}
