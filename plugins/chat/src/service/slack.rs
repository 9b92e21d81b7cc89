//! Slack, by an incoming webhook or as a bot.
//!
//! Event data is sent as `plain_text`, which formats, links and mentions nothing. The three characters with a special
//! meaning in Slack are escaped everywhere.

use serde_json::{Value, json};

use crate::address::{Address, Credential, credential, segment};
use crate::exchange::{Request, SendOutcome, ServiceReply, code};
use crate::fit::{Escape, Unit, fit};
use crate::message::{Field, Message, Text};
use crate::service::{Service, post};

// <https://docs.slack.dev/reference/block-kit/blocks/header-block>
const HEADER_MAX: usize = 150;
// <https://docs.slack.dev/reference/block-kit/blocks/section-block>
const SECTION_MAX: usize = 3000;
const FIELD_MAX: usize = 2000;
const FIELDS_MAX: usize = 10;
/// Maximum length of the text that is shown instead of blocks, e.g. in a notification
/// (<https://docs.slack.dev/messaging/formatting-message-text>).
const FALLBACK_MAX: usize = 4000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slack {
    url: String,
    bot: Option<Bot>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bot {
    token: Credential,
    channel: String,
}

impl Slack {
    pub(crate) fn parse(mut address: Address) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected slack://T…/B…/{secret:NAME} for a webhook, or slack://{secret:NAME}/CHANNEL for a bot";
        let slack = match address.parts()[..] {
            [team, hook, token] => {
                let path = [team, hook, token].map(segment).join("/");
                let endpoint = address.endpoint("https://hooks.slack.com")?;
                Self { url: format!("{endpoint}/services/{path}"), bot: None }
            }
            [token, channel] => {
                let bot = Bot { token: credential(token, "Bearer ")?, channel: channel.to_owned() };
                Self { url: format!("{}/api/chat.postMessage", address.endpoint("https://slack.com")?), bot: Some(bot) }
            }
            _ => return Err(EXPECTED.to_owned()),
        };
        address.finish("endpoint, format and severity")?;
        Ok(slack)
    }

    /// Parses an `https` URL with `/services/T…/B…/…`.
    pub(crate) fn of_url(address: Address) -> Result<Self, String> {
        let address = Address {
            host: address.segments.get(1).cloned().unwrap_or_default(),
            segments: address.segments.iter().skip(2).cloned().collect(),
            ..address
        };
        if address.segments.len() != 2 {
            return Err("expected https://hooks.slack.com/services/T…/B…/{secret:NAME}".to_owned());
        }
        Self::parse(address)
    }
}

/// Escapes for `mrkdwn` (<https://docs.slack.dev/messaging/formatting-message-text>): links and
/// mentions begin with `<`.
fn escape(_before: Option<char>, character: char, out: &mut String) {
    match character {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        other => out.push(other),
    }
}

fn plain(text: &str, max: usize) -> Value {
    json!({ "type": "plain_text", "text": fit(text, max, Unit::Utf16, escape), "emoji": false })
}

/// Returns the two columns of a detail. A label has only letters and digits, so it is literal in `mrkdwn`.
fn row(field: &Field) -> [Value; 2] {
    [json!({ "type": "mrkdwn", "text": format!("*{}*", field.label) }), plain(&field.value, FIELD_MAX)]
}

fn blocks(message: &Message) -> Vec<Value> {
    let mut blocks = vec![json!({ "type": "header", "text": plain(&message.title, HEADER_MAX) })];
    match &message.text {
        Text::Plain(text) | Text::Markup(text) if text.trim().is_empty() => {}
        Text::Markup(text) if Unit::Utf16.size(text) <= SECTION_MAX => {
            blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } }));
        }
        Text::Plain(text) | Text::Markup(text) => {
            blocks.push(json!({ "type": "section", "text": plain(text, SECTION_MAX) }));
        }
    }
    for rows in message.fields.chunks(FIELDS_MAX / 2) {
        blocks.push(json!({ "type": "section", "fields": rows.iter().flat_map(row).collect::<Vec<_>>() }));
    }
    if let Some(link) = &message.link {
        let text = json!({ "type": "mrkdwn", "text": format!("<{}|Open>", link.replace('&', "&amp;")) });
        blocks.push(json!({ "type": "context", "elements": [text] }));
    }
    blocks
}

impl Service for Slack {
    fn label(&self) -> String {
        match &self.bot {
            Some(bot) => format!("slack {}", bot.channel),
            None => "slack".to_owned(),
        }
    }

    fn escape(&self) -> Escape {
        escape
    }

    fn request(&self, message: &Message, _key: &str) -> Request {
        let fallback = format!("{}\n{}", message.title, message.plain());
        let mut body = json!({
            "text": fit(fallback.trim(), FALLBACK_MAX, Unit::Utf16, escape),
            "blocks": blocks(message),
            "unfurl_links": false,
            "unfurl_media": false,
        });
        if let Some(bot) = &self.bot {
            body["channel"] = json!(bot.channel);
        }
        let authorization = self.bot.as_ref().map(|bot| ("authorization", bot.token.clone()));
        Request { authorization, ..post(self.url.clone(), body.to_string().into_bytes()) }
    }

    fn judge(&self, reply: &ServiceReply) -> SendOutcome {
        if self.bot.is_none() {
            // <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors>
            return if reply.is_success() { SendOutcome::Sent(None) } else { by_word(&reply.told(), reply) };
        }
        // <https://docs.slack.dev/reference/methods/chat.postMessage#errors>: most errors come with status 200.
        let answer = reply.json();
        match (answer["ok"].as_bool(), answer["error"].as_str()) {
            (Some(true), _) => SendOutcome::Sent(answer["ts"].as_str().map(str::to_owned)),
            (_, Some(word)) => by_word(word, reply),
            (_, None) if reply.is_success() => SendOutcome::Retry {
                reason: "it answers 200 with something that is not from Slack".to_owned(),
                after: None,
            },
            (_, None) => reply.by_status(),
        }
    }
}

/// Interprets Slack's one-word errors.
fn by_word(word: &str, reply: &ServiceReply) -> SendOutcome {
    let reason = format!("it answers {}: {word}", reply.status);
    match word {
        "rate_limited"
        | "ratelimited"
        | "rollup_error"
        | "internal_error"
        | "fatal_error"
        | "service_unavailable"
        | "request_timeout"
        | "team_added_to_org"
        | "accesslimited" => SendOutcome::Retry { reason, after: reply.retry_after },
        "no_service"
        | "no_service_id"
        | "no_team"
        | "no_active_hooks"
        | "team_disabled"
        | "invalid_token"
        | "channel_not_found"
        | "channel_is_archived"
        | "is_archived"
        | "action_prohibited"
        | "user_not_found"
        | "posting_to_general_channel_denied"
        | "not_in_channel"
        | "invalid_auth"
        | "not_authed"
        | "token_revoked"
        | "token_expired"
        | "account_inactive"
        | "missing_scope"
        | "no_permission"
        | "restricted_action"
        | "restricted_action_read_only_channel"
        | "restricted_action_thread_only_channel"
        | "access_denied"
        | "ekm_access_denied"
        | "enterprise_is_restricted"
        | "org_login_required"
        | "not_allowed_token_type"
        | "messages_tab_disabled"
        | "cannot_reply_to_message" => SendOutcome::Misconfigured(reason),
        "invalid_payload"
        | "invalid_blocks"
        | "invalid_blocks_format"
        | "invalid_attachments"
        | "no_text"
        | "msg_too_long"
        | "msg_blocks_too_long"
        | "too_many_attachments"
        | "invalid_arguments"
        | "as_user_not_supported"
        | "missing_text_or_fallback_or_attachments" => SendOutcome::Reject { code: code(word), reason },
        _ if reply.is_success() => SendOutcome::Reject { code: code(word), reason },
        _ => reply.by_status(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::tests::{any_message, message};

    fn slack(url: &str) -> Slack {
        Slack::parse(Address::parse(url).unwrap()).unwrap()
    }

    #[test]
    fn a_webhook_and_a_bot_are_addressed() {
        let hook = slack("slack://T1/B2/{secret:slack-token}");
        assert_eq!(hook.url, "https://hooks.slack.com/services/T1/B2/{secret:slack-token}");
        let native = "https://hooks.slack.com/services/T1/B2/{secret:slack-token}";
        assert_eq!(Slack::of_url(Address::parse(native).unwrap()), Ok(hook));
        let bot = slack("slack://{secret:bot}/#orders?endpoint=http://127.0.0.1:1/");
        assert_eq!(bot.url, "http://127.0.0.1:1/api/chat.postMessage");
        let request = bot.request(&message(), "key");
        let secret = Credential::Secret { prefix: "Bearer ", name: "bot".to_owned() };
        assert_eq!(request.authorization, Some(("authorization", secret)));
        assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap()["channel"], "#orders");
        for wrong in ["slack://T1", "slack://a/b/c/d", "slack://a/b?x=1", "slack://a/b?endpoint=ftp://x"] {
            assert!(Slack::parse(Address::parse(wrong).unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_message_is_a_header_a_text_and_two_columns() {
        let body: Value = serde_json::from_slice(&slack("slack://T/B/x").request(&message(), "key").body).unwrap();
        assert_eq!(body["blocks"][0]["text"]["text"], "🛒 New order: iPhone 15");
        assert_eq!(body["blocks"][1]["text"]["text"], "a &lt;b&gt; &amp; *c*");
        assert_eq!(body["blocks"][1]["text"]["type"], "plain_text");
        assert_eq!(body["blocks"][2]["fields"][2]["text"], "*Price*");
        assert_eq!(body["blocks"][2]["fields"][3]["text"], "1999.90 EUR");
        assert_eq!(body["blocks"][3]["elements"][0]["text"], "<https://shop.example/orders/4711|Open>");
    }

    #[test]
    fn slack_says_by_a_word_what_to_do() {
        let check = |url: &str, status, body: &str, expected: &str| {
            let reply = ServiceReply { status, retry_after: Some(30_000), body: body.as_bytes().to_vec() };
            let verdict = format!("{:?}", slack(url).judge(&reply));
            assert!(verdict.starts_with(expected), "{body}: {verdict}");
        };
        let hook = "slack://T/B/x";
        check(hook, 200, "ok", "Sent(None)");
        check(hook, 400, "invalid_payload", "Reject { code: \"invalid-payload\"");
        check(hook, 400, "no_text", "Reject");
        check(hook, 403, "action_prohibited", "Misconfigured");
        check(hook, 404, "no_service", "Misconfigured");
        check(hook, 404, "channel_not_found", "Misconfigured");
        check(hook, 410, "channel_is_archived", "Misconfigured");
        check(hook, 429, "rate_limited", "Retry { reason: \"it answers 429: rate_limited\", after: Some(30000) }");
        check(hook, 500, "rollup_error", "Retry");
        check(hook, 503, "<html>", "Retry");
        check(hook, 400, "something_new", "Reject { code: \"http-400\"");
        let bot = "slack://x/#a";
        check(bot, 200, r#"{"ok":true,"ts":"1.2"}"#, "Sent(Some(\"1.2\"))");
        check(bot, 200, r#"{"ok":false,"error":"invalid_auth"}"#, "Misconfigured");
        check(bot, 200, r#"{"ok":false,"error":"not_in_channel"}"#, "Misconfigured");
        check(bot, 200, r#"{"ok":false,"error":"msg_too_long"}"#, "Reject { code: \"msg-too-long\"");
        check(bot, 200, r#"{"ok":false,"error":"something_new"}"#, "Reject { code: \"something-new\"");
        check(bot, 200, r#"{"ok":false,"error":"internal_error"}"#, "Retry");
        check(bot, 429, r#"{"ok":false,"error":"ratelimited"}"#, "Retry");
        check(bot, 200, "<html>", "Retry");
        check(bot, 502, "<html>", "Retry");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_message_breaks_a_limit_or_calls_anybody(message in any_message()) {
            let body: Value = serde_json::from_slice(&slack("slack://T/B/x").request(&message, "key").body).unwrap();
            let blocks = body["blocks"].as_array().unwrap();
            prop_assert!(blocks.len() <= 50);
            let mut texts = vec![(&body["text"], FALLBACK_MAX)];
            for block in blocks {
                let max = if block["type"] == "header" { HEADER_MAX } else { SECTION_MAX };
                texts.extend(block["text"]["text"].as_str().map(|_| (&block["text"]["text"], max)));
                let fields = block["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
                prop_assert!(fields.len() <= FIELDS_MAX);
                texts.extend(fields.iter().map(|field| (&field["text"], FIELD_MAX)));
            }
            for (text, max) in texts {
                let text = text.as_str().unwrap();
                prop_assert!(!text.is_empty() && text.encode_utf16().count() <= max);
                prop_assert!(!text.contains(['<', '>']), "{}", text);
            }
        }
    }
}
