//! ntfy, at ntfy.sh or on a self-hosted server.

use serde_json::{Value, json};

use crate::address::{Address, Credential, credential};
use crate::exchange::{Request, SendOutcome, ServiceReply};
use crate::fit::{Escape, Unit, as_it_is, fit, markdown};
use crate::message::{Message, Severity, Text};
use crate::service::{Service, post};

/// Maximum bytes of a message. Longer ones become attachments (<https://docs.ntfy.sh/publish/#limitations>).
const MESSAGE_BYTES_MAX: usize = 4096;
/// Maximum bytes of a JSON body: ntfy reads twice the message limit.
const BODY_BYTES_MAX: usize = 8192;
const TITLE_BYTES_MAX: usize = 250;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ntfy {
    url: String,
    topic: String,
    token: Option<Credential>,
    priority: Option<u8>,
    tags: Vec<String>,
}

impl Ntfy {
    /// Parses `ntfys://[{secret:NAME}@]HOST/TOPIC`, or `ntfy://TOPIC` at ntfy.sh.
    pub(crate) fn parse(mut address: Address) -> Result<Self, String> {
        let (url, topic) = match &address.segments[..] {
            [] => ("https://ntfy.sh".to_owned(), address.host.clone()),
            [topic] => (address.origin("ntfy"), topic.clone()),
            _ => return Err("expected ntfys://HOST/TOPIC, or ntfy://TOPIC for ntfy.sh".to_owned()),
        };
        let is_topic = (1..=64).contains(&topic.len())
            && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !is_topic {
            return Err(format!("{topic:?} is no topic: 1 to 64 of a-z, A-Z, 0-9, - and _"));
        }
        let token = match address.user.take() {
            Some(user) if user.contains(':') && !user.starts_with("{secret:") => {
                return Err("ntfy takes an access token here, {secret:NAME}@, not a name and a password".to_owned());
            }
            Some(token) => Some(credential(&token, "Bearer ")?),
            None => None,
        };
        let priority = address.take("priority").map(|priority| priority_of(&priority)).transpose()?;
        let tags = address.take("tags").unwrap_or_default();
        let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        address.finish("priority, tags, format and severity")?;
        Ok(Self { url, topic, token, priority, tags })
    }
}

fn priority_of(text: &str) -> Result<u8, String> {
    // <https://docs.ntfy.sh/publish/#message-priority>
    match text {
        "1" | "min" => Ok(1),
        "2" | "low" => Ok(2),
        "3" | "default" | "normal" => Ok(3),
        "4" | "high" => Ok(4),
        "5" | "max" | "urgent" => Ok(5),
        _ => Err(format!("priority: expected min, low, default, high or max, got {text:?}")),
    }
}

impl Service for Ntfy {
    fn label(&self) -> String {
        format!("ntfy {}", self.topic)
    }

    fn escape(&self) -> Escape {
        markdown
    }

    /// From ntfy 2.16, the sequence id makes a repetition replace the notification.
    fn recognises_repetitions(&self) -> bool {
        true
    }

    fn request(&self, message: &Message, key: &str) -> Request {
        // <https://docs.ntfy.sh/publish/#publish-as-json>
        let form = |message: &Message| {
            let text = message.any_text(markdown);
            let mut body = json!({
                "topic": self.topic,
                "title": fit(&message.title, TITLE_BYTES_MAX, Unit::Bytes, as_it_is),
                "message": fit(&text, MESSAGE_BYTES_MAX, Unit::Bytes, as_it_is),
                "priority": self.priority.unwrap_or(match message.severity {
                    Severity::Info | Severity::Success => 3,
                    Severity::Warning => 4,
                    Severity::Error => 5,
                }),
                "sequence_id": key,
            });
            if !self.tags.is_empty() {
                body["tags"] = json!(self.tags);
            }
            if let Some(link) = &message.link {
                body["click"] = json!(link);
            }
            if matches!(message.text, Text::Markup(_)) {
                body["markdown"] = json!(true);
            }
            body.to_string().into_bytes()
        };
        let authorization = self.token.clone().map(|token| ("authorization", token));
        Request { authorization, ..post(self.url.clone(), message.within(BODY_BYTES_MAX, form)) }
    }

    fn judge(&self, reply: &ServiceReply) -> SendOutcome {
        let answer: Value = reply.json();
        if reply.is_success() {
            return SendOutcome::Sent(answer["id"].as_str().map(str::to_owned));
        }
        reply.by_status_telling(answer["error"].as_str().unwrap_or(&reply.told()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::tests::{any_message, message};

    fn ntfy(url: &str) -> Ntfy {
        Ntfy::parse(Address::parse(url).unwrap()).unwrap()
    }

    fn body(ntfy: &Ntfy, message: &Message) -> Value {
        serde_json::from_slice(&ntfy.request(message, "a-key").body).unwrap()
    }

    #[test]
    fn a_topic_is_addressed() {
        assert_eq!(ntfy("ntfy://orders").url, "https://ntfy.sh");
        assert_eq!(ntfy("ntfy://push.lan:8080/orders").url, "http://push.lan:8080");
        let topic = ntfy("ntfys://{secret:n}@push.example/orders?priority=high&tags=shop,%20warning");
        assert_eq!(topic.url, "https://push.example");
        let secret = Credential::Secret { prefix: "Bearer ", name: "n".to_owned() };
        assert_eq!(topic.request(&message(), "k").authorization, Some(("authorization", secret)));
        let sent = body(&topic, &message());
        assert_eq!((&sent["priority"], &sent["tags"]), (&json!(4), &json!(["shop", "warning"])));
        for wrong in
            ["ntfys://a/b/c", "ntfys://a/b%20c", "ntfys://u:p@a/b", "ntfys://a/b?priority=9", "ntfys://a/b?x=1"]
        {
            assert!(Ntfy::parse(Address::parse(wrong).unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_message_is_plain_text_with_a_title() {
        let sent = body(&ntfy("ntfy://orders"), &message());
        assert_eq!(sent["title"], "🛒 New order: iPhone 15");
        assert_eq!(sent["message"], "a <b> & *c*\nOrder: 4711\nPrice: 1999.90 EUR");
        assert_eq!((&sent["priority"], &sent["click"]), (&json!(3), &json!("https://shop.example/orders/4711")));
        assert_eq!((&sent["sequence_id"], sent.get("markdown")), (&json!("a-key"), None));
    }

    #[test]
    fn details_below_markup_are_not_markup() {
        let mut marked = message();
        (marked.text, marked.fields[0].value) = (Text::Markup("**x**".to_owned()), "[a](b)".to_owned());
        let sent = body(&ntfy("ntfy://orders"), &marked);
        assert_eq!(sent["markdown"], true);
        // ntfy would show an empty message as "triggered".
        let untold =
            Message { text: Text::Markup(String::new()), fields: Vec::new(), title: "[a](b)".to_owned(), ..message() };
        assert_eq!(body(&ntfy("ntfy://orders"), &untold)["message"], "\\[a\\]\\(b\\)");
        assert_eq!(sent["message"], "**x**\nOrder: \\[a\\]\\(b\\)\nPrice: 1999\\.90 EUR");
    }

    #[test]
    fn ntfy_says_what_to_do() {
        let check = |status, body: &str, expected: &str| {
            let reply = ServiceReply { status, retry_after: None, body: body.as_bytes().to_vec() };
            let verdict = format!("{:?}", ntfy("ntfy://orders").judge(&reply));
            assert!(verdict.starts_with(expected), "{body}: {verdict}");
        };
        check(200, r#"{"id":"xE7"}"#, "Sent(Some(\"xE7\"))");
        check(
            429,
            r#"{"code":42901,"http":429,"error":"limit reached"}"#,
            "Retry { reason: \"it answers 429: limit reached\"",
        );
        check(401, r#"{"code":40101,"error":"unauthorized"}"#, "Misconfigured");
        check(403, r#"{"code":40301,"error":"forbidden"}"#, "Misconfigured");
        check(413, r#"{"code":41303,"error":"too large"}"#, "Reject { code: \"too-large\"");
        check(400, r#"{"code":40024,"error":"invalid"}"#, "Reject");
        check(507, "", "Retry");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_message_breaks_a_limit(message in any_message()) {
            let request = ntfy("ntfy://orders").request(&message, "a-key");
            prop_assert!(request.body.len() <= BODY_BYTES_MAX);
            let sent: Value = serde_json::from_slice(&request.body).unwrap();
            let text = sent["message"].as_str().unwrap();
            prop_assert!(!text.is_empty() && text.len() <= MESSAGE_BYTES_MAX);
            prop_assert!(sent.get("markdown").is_none());
        }
    }
}
