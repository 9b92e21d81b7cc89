//! Slack, Discord, Microsoft Teams and Mattermost.

use serde_json::{Value, json};
use testbed::receiver::{Answer, Request};

use crate::chat::service::{Service, called, header, must, path, text};
use crate::chat::{case, check, service};

/// The rate limit over a window of seconds is not simulated; only its 429 answer is.
pub(super) fn slack() -> Service {
    Service {
        name: "slack",
        target: "slack://T024/B024/{secret:slack-token}?endpoint=http://HOST",
        secret: ("slack-token", "XXcanaryXXslack"),
        rules: |request| {
            path(request, "/services/T024/B024/XXcanaryXXslack")?;
            slack_message(&service::json(request, "POST")?)
        },
        taken: || Answer::status(200).body("ok"),
        // https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors
        refused: |_| Answer::status(400).body("invalid_payload"),
        busy: "rate_limited",
    }
}

fn slack_bot() -> Service {
    Service {
        name: "slack-bot",
        target: "slack://{secret:slack-bot}/#orders?endpoint=http://HOST",
        secret: ("slack-bot", "xoxb-canary"),
        rules: |request| {
            // https://docs.slack.dev/reference/methods/chat.postMessage
            path(request, "/api/chat.postMessage")?;
            header(request, "authorization", "Bearer xoxb-canary")?;
            let body = service::json(request, "POST")?;
            must(body["channel"] == "#orders", "no channel")?;
            slack_message(&body)
        },
        taken: || Answer::status(200).body(r#"{"ok":true,"channel":"C1","ts":"1503435956.000247"}"#),
        refused: |_| Answer::status(200).body(r#"{"ok":false,"error":"invalid_arguments"}"#),
        busy: r#"{"ok":false,"error":"ratelimited"}"#,
    }
}

fn slack_message(body: &Value) -> Result<(), String> {
    // https://docs.slack.dev/messaging/formatting-message-text: & < > are escaped, `<` begins a link or a
    // mention.
    let plain = |value: &Value, max: usize| {
        let text = text(value, max)?;
        must(!text.contains(['<', '>']), format!("Slack would read {text:?}"))?;
        let entities = text.split('&').skip(1);
        let is_entity = |rest: &str| ["amp;", "lt;", "gt;"].iter().any(|entity| rest.starts_with(entity));
        must(entities.into_iter().all(is_entity), format!("a bare & in {text:?}"))
    };
    plain(&body["text"], 4000)?;
    // https://docs.slack.dev/reference/block-kit/blocks
    let blocks = body["blocks"].as_array().ok_or("no blocks")?;
    must((1..=50).contains(&blocks.len()), "more than 50 blocks")?;
    for block in blocks {
        match block["type"].as_str() {
            // https://docs.slack.dev/reference/block-kit/blocks/header-block
            Some("header") => {
                must(block["text"]["type"] == "plain_text", "a header is plain_text")?;
                plain(&block["text"]["text"], 150)?;
            }
            // https://docs.slack.dev/reference/block-kit/blocks/section-block
            Some("section") => {
                let fields = block["fields"].as_array().cloned().unwrap_or_default();
                must(block["text"].is_object() || !fields.is_empty(), "a section without text and fields")?;
                must(fields.len() <= 10, "more than 10 fields")?;
                if block["text"].is_object() {
                    plain(&block["text"]["text"], 3000)?;
                }
                for field in fields {
                    plain(&field["text"], 2000)?;
                    let is_label = field["type"] == "mrkdwn";
                    let text = field["text"].as_str().unwrap_or_default();
                    let inner = text.trim_matches('*');
                    let is_harmless = inner.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'));
                    must(!is_label || is_harmless, format!("Slack would format {text:?}"))?;
                }
            }
            // https://docs.slack.dev/reference/block-kit/blocks/context-block
            Some("context") => {
                let link = block["elements"][0]["text"].as_str().unwrap_or_default();
                let url =
                    link.strip_prefix('<').and_then(|rest| rest.strip_suffix("|Open>")).ok_or("no link of ours")?;
                must(
                    url.starts_with("https://shop.example/") && !url.contains(['<', '>', '|']),
                    format!("a link to {url}"),
                )?;
            }
            other => return Err(format!("a block of type {other:?}")),
        }
    }
    Ok(())
}

#[test]
fn slack_takes_what_is_sent_by_a_webhook_and_its_words_are_understood() {
    check(
        slack(),
        &[
            case(400, "invalid_payload", "reject", "invalid-payload"),
            case(403, "action_prohibited", "misconfigured", "action_prohibited"),
            case(404, "no_service", "misconfigured", "no_service"),
            case(404, "channel_not_found", "misconfigured", "channel_not_found"),
            case(410, "channel_is_archived", "misconfigured", "channel_is_archived"),
            case(429, "rate_limited", "retry", "rate_limited"),
            case(500, "rollup_error", "retry", "rollup_error"),
        ],
    );
}

#[test]
fn slack_takes_what_is_sent_by_a_bot_and_its_words_are_understood() {
    let word = |word: &str| format!("{{\"ok\":false,\"error\":{word:?}}}");
    check(
        slack_bot(),
        &[
            case(200, &word("invalid_auth"), "misconfigured", "invalid_auth"),
            case(200, &word("channel_not_found"), "misconfigured", "channel_not_found"),
            case(200, &word("not_in_channel"), "misconfigured", "not_in_channel"),
            case(200, &word("msg_too_long"), "reject", "msg-too-long"),
            case(200, &word("internal_error"), "retry", "internal_error"),
            case(429, &word("ratelimited"), "retry", "ratelimited"),
        ],
    );
}

pub(super) fn discord() -> Service {
    Service {
        name: "discord",
        target: "discord://223704706495545344/{secret:discord-token}?endpoint=http://HOST",
        secret: (
            "discord-token",
            "canary3d89bb7572e0fb30d8128367b3b1b44fecd1726de135cbe28a41f8b2f777c372ba2939e72279b",
        ),
        rules: discord_message,
        taken: || Answer::status(200).body(r#"{"id":"1234","type":0}"#),
        // https://docs.discord.com/developers/reference#error-messages
        refused: |rule| Answer::status(400).body(json!({ "code": 50035, "message": rule, "errors": {} }).to_string()),
        busy: r#"{"message":"You are being rate limited.","retry_after":0.65,"global":false}"#,
    }
}

fn discord_message(request: &Request) -> Result<(), String> {
    let token = discord().secret.1;
    // https://docs.discord.com/developers/resources/webhook#execute-webhook
    path(request, &format!("/api/webhooks/223704706495545344/{token}?wait=true"))?;
    let body = service::json(request, "POST")?;
    // https://docs.discord.com/developers/resources/message#allowed-mentions-object
    must(body["allowed_mentions"] == json!({ "parse": [] }), "somebody may be called")?;
    must(body.get("content").is_none(), "only embeds are expected")?;
    let embeds = body["embeds"].as_array().ok_or("no embeds")?;
    must(embeds.len() == 1, "one embed")?;
    // https://docs.discord.com/developers/resources/message#embed-object-embed-limits
    let embed = &embeds[0];
    let mut sum = 0;
    let mut texts = vec![(&embed["title"], 256)];
    texts.extend(embed.get("description").map(|text| (text, 4096)));
    let fields = embed["fields"].as_array().cloned().unwrap_or_default();
    must(fields.len() <= 25, "more than 25 fields")?;
    for field in &fields {
        texts.extend([(&field["name"], 256), (&field["value"], 1024)]);
    }
    for (value, max) in texts {
        let text = text(value, max)?;
        sum += text.encode_utf16().count();
        // https://support.discord.com/hc/en-us/articles/210298617: a backslash escapes markup.
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            if character == '\\' {
                rest.next();
            } else {
                must(!"*_~`|>#<[]()@".contains(character), format!("Discord would format {text:?}"))?;
            }
        }
    }
    must(sum <= 6000, format!("{sum} characters in an embed"))?;
    must(embed["color"].as_u64().is_some_and(|color| color <= 0xff_ffff), "no color")
}

#[test]
fn discord_takes_what_is_sent_and_its_errors_are_understood() {
    check(
        discord(),
        &[
            case(400, r#"{"code":50035,"message":"Invalid Form Body"}"#, "reject", "invalid-form-body"),
            case(401, r#"{"code":50027,"message":"Invalid Webhook Token"}"#, "misconfigured", "Invalid Webhook Token"),
            case(404, r#"{"code":10015,"message":"Unknown Webhook"}"#, "misconfigured", "Unknown Webhook"),
            case(429, r#"{"message":"You are being rate limited.","retry_after":64.57}"#, "retry", "64570 ms"),
            case(502, "<html>", "retry", "502"),
        ],
    );
}

pub(super) fn teams() -> Service {
    Service {
        name: "teams",
        target: "workflows://prod-12.westeurope.logic.azure.com:443/643e69f83c8944/{secret:teams-sig}?endpoint=http://HOST",
        secret: ("teams-sig", "canary-KZJ_zsigU9"),
        rules: teams_message,
        taken: || Answer::status(202),
        refused: |rule| {
            Answer::status(400).body(json!({ "error": { "code": "BadRequest", "message": rule } }).to_string())
        },
        busy: "",
    }
}

fn teams_message(request: &Request) -> Result<(), String> {
    // https://learn.microsoft.com/connectors/teams/#microsoft-teams-webhook
    path(
        request,
        "/workflows/643e69f83c8944/triggers/manual/paths/invoke?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun\
         &sv=1.0&sig=canary-KZJ_zsigU9",
    )?;
    let body = service::json(request, "POST")?;
    // https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using: 28 KB
    must(request.body.len() <= 28 << 10, format!("{} bytes", request.body.len()))?;
    must(body["type"] == "message", "no message")?;
    let attachments = body["attachments"].as_array().ok_or("'attachments' is of type 'Null'")?;
    must(attachments.len() == 1, "one card")?;
    must(attachments[0]["contentType"] == "application/vnd.microsoft.card.adaptive", "no Adaptive Card")?;
    // https://adaptivecards.io/explorer/AdaptiveCard.html
    let card = &attachments[0]["content"];
    must(card["type"] == "AdaptiveCard" && card["version"] == "1.4", "no Adaptive Card of 1.4")?;
    // https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format#mention-support-within-adaptive-cards
    must(card["msteams"].get("entities").is_none(), "somebody is called")?;
    for part in card["body"].as_array().ok_or("no body")? {
        match part["type"].as_str() {
            // https://adaptivecards.io/explorer/RichTextBlock.html: Markdown does not apply here.
            Some("RichTextBlock") => {
                for run in part["inlines"].as_array().ok_or("no inlines")? {
                    must(run["type"] == "TextRun" && run["text"].is_string(), "no text run")?;
                }
            }
            // Markdown from the operator's template. Only event data is escaped.
            Some("TextBlock") => {
                let text = part["text"].as_str().ok_or("no text")?;
                let mut rest = text.chars();
                while let Some(character) = rest.next() {
                    if character == '\\' {
                        rest.next();
                    } else {
                        must(!"*_[]()`".contains(character), format!("Teams would format {text:?}"))?;
                    }
                }
            }
            other => return Err(format!("an element of type {other:?}")),
        }
    }
    for action in card["actions"].as_array().into_iter().flatten() {
        must(action["type"] == "Action.OpenUrl", "another action")?;
        must(action["url"].as_str().is_some_and(|url| url.starts_with("https://shop.example/")), "another URL")?;
    }
    Ok(())
}

#[test]
fn teams_takes_what_is_sent_and_its_errors_are_understood() {
    let failed = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error";
    check(
        teams(),
        &[
            case(200, &format!("{failed} 429 with ContextId tcid=0"), "retry", "HTTP error 429"),
            case(200, &format!("{failed} 413 with ContextId tcid=0"), "reject", "too-large"),
            case(400, r#"{"error":{"code":"TriggerInputSchemaMismatch"}}"#, "reject", "TriggerInputSchemaMismatch"),
            case(401, r#"{"error":{"code":"DirectApiAuthorizationRequired"}}"#, "misconfigured", "DirectApi"),
            case(404, r#"{"error":{"code":"WorkflowNotFound"}}"#, "misconfigured", "WorkflowNotFound"),
            case(429, "", "retry", "429"),
            case(502, "", "retry", "502"),
        ],
    );
}

pub(super) fn mattermost() -> Service {
    Service {
        name: "mattermost",
        target: "mmost://HOST/{secret:mattermost-hook}?channel=town-square",
        secret: ("mattermost-hook", "canaryxge1emocp5d4hkwsey"),
        rules: mattermost_message,
        taken: || Answer::status(200).body("ok"),
        refused: |rule| {
            let error = json!({ "id": "web.incoming_webhook.parse.app_error", "message": rule, "status_code": 400 });
            Answer::status(400).body(error.to_string())
        },
        busy: "limit exceeded",
    }
}

fn mattermost_message(request: &Request) -> Result<(), String> {
    // https://developers.mattermost.com/integrate/webhooks/incoming/
    path(request, "/hooks/canaryxge1emocp5d4hkwsey")?;
    let body = service::json(request, "POST")?;
    must(body["channel"] == "town-square", "no channel")?;
    // https://developers.mattermost.com/integrate/reference/message-attachments/
    let attachments = body["attachments"].as_array().ok_or("no attachments")?;
    must(attachments.len() == 1, "one attachment")?;
    let attachment = &attachments[0];
    let mut texts = vec![&attachment["title"], &attachment["fallback"]];
    texts.extend(attachment["text"].as_str().filter(|text| !text.is_empty()).map(|_| &attachment["text"]));
    let fields = attachment["fields"].as_array().cloned().unwrap_or_default();
    texts.extend(fields.iter().flat_map(|field| [&field["title"], &field["value"]]));
    let mut sum = 0;
    for value in texts {
        let text = text(value, 16_383)?;
        sum += text.len();
        // Mattermost translates Slack's markup first.
        must(!text.contains('<'), format!("Mattermost would translate {text:?}"))?;
        // https://docs.mattermost.com/collaborate/mention-people.html
        must(called(text).is_empty(), format!("{:?} would be called by {text:?}", called(text)))?;
        // https://docs.mattermost.com/collaborate/format-messages.html
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            if character == '\\' {
                rest.next();
            } else {
                must(!"*_~`[]()|".contains(character), format!("Mattermost would format {text:?}"))?;
            }
        }
    }
    must(sum <= 65_535, format!("{sum} bytes of a post"))
}

#[test]
fn mattermost_takes_what_is_sent_and_its_errors_are_understood() {
    let invalid = r#"{"id":"web.incoming_webhook.invalid.app_error","message":"Invalid webhook.","status_code":400}"#;
    check(
        mattermost(),
        &[
            case(400, invalid, "misconfigured", "Invalid webhook"),
            case(400, r#"{"id":"api.context.invalid_body_param","message":"Invalid body"}"#, "reject", "http-400"),
            case(403, r#"{"message":"You do not have the appropriate permissions."}"#, "misconfigured", "permissions"),
            case(404, r#"{"message":"Couldn't find the channel."}"#, "misconfigured", "channel"),
            case(429, "limit exceeded", "retry", "limit exceeded"),
            case(500, "", "retry", "500"),
        ],
    );
}
