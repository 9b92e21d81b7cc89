//! Gotify, on a self-hosted server.

use serde_json::{Value, json};

use crate::address::{Address, Credential, credential, segment};
use crate::exchange::{Request, SendOutcome, ServiceReply};
use crate::fit::{Escape, markdown};
use crate::message::{Message, Severity, Text};
use crate::service::{Service, post};

/// Maximum bytes of a body. Gotify documents no limit; Apprise uses this one.
const BODY_BYTES_MAX: usize = 32 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gotify {
    url: String,
    token: Credential,
    priority: Option<u8>,
}

impl Gotify {
    /// Parses `gotifys://HOST[/PATH]/{secret:NAME}`.
    pub(crate) fn parse(mut address: Address) -> Result<Self, String> {
        let Some((token, path)) = address.segments.split_last() else {
            return Err("expected gotifys://HOST/{secret:NAME}".to_owned());
        };
        let path: String = path.iter().flat_map(|part| ["/".to_owned(), segment(part)]).collect();
        let (url, token) = (format!("{}{path}/message", address.origin("gotify")), credential(token, "")?);
        let priority = address.take("priority").map(|priority| priority_of(&priority)).transpose()?;
        address.finish("priority, format and severity")?;
        Ok(Self { url, token, priority })
    }
}

fn priority_of(text: &str) -> Result<u8, String> {
    // <https://gotify.net/docs/msgextras>. The app shows priorities silently, with a sound, or on top.
    match text {
        "min" => Ok(0),
        "low" => Ok(1),
        "moderate" => Ok(3),
        "default" | "normal" => Ok(5),
        "high" => Ok(8),
        "max" | "emergency" => Ok(10),
        _ => text
            .parse()
            .ok()
            .filter(|number| *number <= 10)
            .ok_or_else(|| format!("priority: expected min, low, normal, high, max or 0 to 10, got {text:?}")),
    }
}

impl Service for Gotify {
    fn label(&self) -> String {
        "gotify".to_owned()
    }

    fn escape(&self) -> Escape {
        markdown
    }

    fn request(&self, message: &Message, _key: &str) -> Request {
        // <https://gotify.net/docs/pushmsg>
        let form = |message: &Message| {
            let text = message.any_text(markdown);
            let content_type = match message.text {
                Text::Plain(_) => "text/plain",
                Text::Markup(_) => "text/markdown",
            };
            let mut extras = json!({ "client::display": { "contentType": content_type } });
            if let Some(link) = &message.link {
                extras["client::notification"] = json!({ "click": { "url": link } });
            }
            let priority = self.priority.unwrap_or(match message.severity {
                Severity::Info | Severity::Success => 5,
                Severity::Warning => 7,
                Severity::Error => 8,
            });
            json!({ "title": message.title, "message": text, "priority": priority, "extras": extras })
                .to_string()
                .into_bytes()
        };
        let authorization = Some(("x-gotify-key", self.token.clone()));
        Request { authorization, ..post(self.url.clone(), message.within(BODY_BYTES_MAX, form)) }
    }

    fn judge(&self, reply: &ServiceReply) -> SendOutcome {
        let answer: Value = reply.json();
        if reply.is_success() {
            return SendOutcome::Sent(answer["id"].as_u64().map(|id| id.to_string()));
        }
        reply.by_status_telling(answer["errorDescription"].as_str().unwrap_or(&reply.told()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::tests::{any_message, message};

    fn gotify(url: &str) -> Gotify {
        Gotify::parse(Address::parse(url).unwrap()).unwrap()
    }

    #[test]
    fn an_application_is_addressed() {
        let app = gotify("gotifys://push.example/sub/{secret:g}?priority=high");
        assert_eq!(app.url, "https://push.example/sub/message");
        let request = app.request(&message(), "key");
        let secret = Credential::Secret { prefix: "", name: "g".to_owned() };
        assert_eq!(request.authorization, Some(("x-gotify-key", secret)));
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(sent["priority"], 8);
        assert_eq!(gotify("gotify://push.lan:80/A1").url, "http://push.lan:80/message");
        for wrong in ["gotifys://a", "gotifys://a/b?priority=11", "gotifys://a/b?x=1"] {
            assert!(Gotify::parse(Address::parse(wrong).unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_message_is_plain_text_with_a_title() {
        let request = gotify("gotifys://a/b").request(&message(), "key");
        let sent: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(sent["title"], "🛒 New order: iPhone 15");
        assert_eq!(sent["message"], "a <b> & *c*\nOrder: 4711\nPrice: 1999.90 EUR");
        assert_eq!(sent["extras"]["client::display"]["contentType"], "text/plain");
        assert_eq!(sent["extras"]["client::notification"]["click"]["url"], "https://shop.example/orders/4711");
    }

    #[test]
    fn gotify_says_what_to_do() {
        let check = |status, body: &str, expected: &str| {
            let reply = ServiceReply { status, retry_after: None, body: body.as_bytes().to_vec() };
            let verdict = format!("{:?}", gotify("gotifys://a/b").judge(&reply));
            assert!(verdict.starts_with(expected), "{body}: {verdict}");
        };
        check(200, r#"{"id":25,"appid":5}"#, "Sent(Some(\"25\"))");
        let unauthorized =
            r#"{"error":"Unauthorized","errorCode":401,"errorDescription":"you need to provide a valid access token"}"#;
        check(401, unauthorized, "Misconfigured(\"it answers 401: you need to provide");
        check(403, "{}", "Misconfigured");
        check(400, "{}", "Reject");
        check(500, "{}", "Retry");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_message_breaks_the_limit_or_is_formatted(message in any_message()) {
            let request = gotify("gotifys://a/b").request(&message, "key");
            prop_assert!(request.body.len() <= BODY_BYTES_MAX);
            let sent: Value = serde_json::from_slice(&request.body).unwrap();
            prop_assert!(!sent["message"].as_str().unwrap().is_empty());
            prop_assert_eq!(&sent["extras"]["client::display"]["contentType"], "text/plain");
        }
    }
}
