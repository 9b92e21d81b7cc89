//! Microsoft Teams, by a workflow that posts its input, or by one of the older connectors.
//!
//! Event data is sent as text runs, which format, link and mention nothing.

use serde_json::{Value, json};

use crate::address::{Address, query, segment};
use crate::exchange::{Request, SendOutcome, ServiceReply};
use crate::fit::{Escape, markdown};
use crate::message::{Message, Severity, Text};
use crate::service::{Service, post};

/// Maximum bytes of a message. Teams allows 28 KB, some of which its own additions need
/// (<https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>).
const MESSAGE_BYTES_MAX: usize = 26 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Teams {
    url: String,
}

impl Teams {
    /// Parses `workflows://HOST/WORKFLOW/{secret:NAME}`. The secret is the signature, `sig`, of the workflow's URL.
    pub(crate) fn parse_workflow(mut address: Address) -> Result<Self, String> {
        let [host, workflow, signature] = address.parts()[..] else {
            return Err("expected workflows://HOST/WORKFLOW/{secret:NAME}, or the workflow's https URL".to_owned());
        };
        let (workflow, signature) = (segment(workflow), query(signature));
        let host = format!("https://{host}");
        let endpoint = address.endpoint(&host)?;
        address.finish("endpoint, format and severity")?;
        Ok(Self {
            url: format!(
                "{endpoint}/workflows/{workflow}/triggers/manual/paths/invoke\
                 ?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={signature}"
            ),
        })
    }

    /// Parses `msteams://TEAM/GROUP/HOOK/{secret:NAME}`, for the connectors that Microsoft has retired.
    pub(crate) fn parse_connector(mut address: Address) -> Result<Self, String> {
        const EXPECTED: &str = "expected msteams://TEAM/GROUP/HOOK/{secret:NAME}[/V2]; a workflow is \
            workflows://HOST/WORKFLOW/{secret:NAME}, or its https URL";
        let (team, path) = match address.parts()[..] {
            [team, group, hook, token] => {
                (team, format!("{}/IncomingWebhook/{}/{}", segment(group), segment(hook), segment(token)))
            }
            [team, group, hook, token, second] => (
                team,
                format!("{}/IncomingWebhook/{}/{}/{}", segment(group), segment(hook), segment(token), segment(second)),
            ),
            _ => return Err(EXPECTED.to_owned()),
        };
        let host = format!("https://{team}.webhook.office.com");
        let endpoint = address.endpoint(&host)?;
        address.finish("endpoint, format and severity")?;
        Ok(Self { url: format!("{endpoint}/webhookb2/{path}") })
    }

    /// Takes a URL as Teams shows it, with a placeholder for its secret.
    pub(crate) fn of_url(url: &str) -> Self {
        Self { url: url.to_owned() }
    }
}

fn runs(runs: &[Value]) -> Value {
    json!({ "type": "RichTextBlock", "inlines": runs })
}

fn color(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "Default",
        Severity::Success => "Good",
        Severity::Warning => "Warning",
        Severity::Error => "Attention",
    }
}

/// Builds the card (<https://adaptivecards.io/explorer/RichTextBlock.html>).
fn body(message: &Message) -> Vec<u8> {
    let title = json!({
        "type": "TextRun", "text": message.title, "size": "Large", "weight": "Bolder", "color": color(message.severity),
    });
    let mut parts = vec![runs(&[title])];
    match &message.text {
        Text::Plain(text) | Text::Markup(text) if text.trim().is_empty() => {}
        Text::Markup(text) => parts.push(json!({ "type": "TextBlock", "text": text, "wrap": true })),
        Text::Plain(text) => parts.extend(
            text.lines()
                .filter(|line| !line.trim().is_empty())
                .map(|line| runs(&[json!({ "type": "TextRun", "text": line })])),
        ),
    }
    for field in &message.fields {
        parts.push(runs(&[
            json!({ "type": "TextRun", "text": format!("{}: ", field.label), "weight": "Bolder" }),
            json!({ "type": "TextRun", "text": field.value }),
        ]));
    }
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": parts,
        "msteams": { "width": "Full" },
    });
    if let Some(link) = &message.link {
        card["actions"] = json!([{ "type": "Action.OpenUrl", "title": "Open", "url": link }]);
    }
    let attachment =
        json!({ "contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card });
    json!({ "type": "message", "attachments": [attachment] }).to_string().into_bytes()
}

impl Service for Teams {
    fn label(&self) -> String {
        "teams".to_owned()
    }

    fn escape(&self) -> Escape {
        markdown
    }

    fn request(&self, message: &Message, _key: &str) -> Request {
        post(self.url.clone(), message.within(MESSAGE_BYTES_MAX, body))
    }

    fn judge(&self, reply: &ServiceReply) -> SendOutcome {
        let told = reply.told();
        // A connector may answer 200 with a failure in the text.
        let failed = reply.status == 200 && told.contains("delivery failed");
        if failed {
            let status =
                told.split("HTTP error ").nth(1).and_then(|rest| rest.get(..3)).and_then(|digits| digits.parse().ok());
            let meant = ServiceReply { status: status.unwrap_or(503), ..reply.clone() };
            return meant.by_status_telling(&told);
        }
        // A workflow answers 202 once it has accepted the message.
        reply.by_status()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::tests::{any_message, message};

    fn workflow() -> Teams {
        let url = "workflows://prod-1.westeurope.logic.azure.com:443/abc/{secret:teams-sig}";
        Teams::parse_workflow(Address::parse(url).unwrap()).unwrap()
    }

    #[test]
    fn a_workflow_and_a_connector_are_addressed() {
        assert_eq!(
            workflow().url,
            "https://prod-1.westeurope.logic.azure.com:443/workflows/abc/triggers/manual/paths/invoke\
             ?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={secret:teams-sig}"
        );
        let connector = Address::parse("msteams://team/a@b/c/{secret:t}").unwrap();
        // In a URL's host part, text before an @ would be a user name; here it belongs to the path.
        assert_eq!(
            Teams::parse_connector(connector).unwrap().url,
            "https://team.webhook.office.com/webhookb2/a@b/IncomingWebhook/c/{secret:t}"
        );
        assert!(Teams::parse_connector(Address::parse("msteams://a/b").unwrap()).is_err());
        assert!(Teams::parse_workflow(Address::parse("workflows://a/b").unwrap()).is_err());
    }

    #[test]
    fn a_message_is_an_adaptive_card() {
        let body: Value = serde_json::from_slice(&workflow().request(&message(), "key").body).unwrap();
        let attachment = &body["attachments"][0];
        assert_eq!(
            (&body["type"], &attachment["contentType"]),
            (&json!("message"), &json!("application/vnd.microsoft.card.adaptive"))
        );
        let card = &attachment["content"];
        assert_eq!(card["type"], "AdaptiveCard");
        assert_eq!(card["body"][0]["inlines"][0]["text"], "🛒 New order: iPhone 15");
        assert_eq!(card["body"][1]["inlines"][0]["text"], "a <b> & *c*");
        assert_eq!(card["body"][3]["inlines"][0]["text"], "Price: ");
        assert_eq!(card["body"][3]["inlines"][1]["text"], "1999.90 EUR");
        assert_eq!(card["actions"][0]["url"], "https://shop.example/orders/4711");
    }

    #[test]
    fn teams_says_what_to_do() {
        let check = |status, body: &str, expected: &str| {
            let reply = ServiceReply { status, retry_after: Some(9), body: body.as_bytes().to_vec() };
            let verdict = format!("{:?}", workflow().judge(&reply));
            assert!(verdict.starts_with(expected), "{body}: {verdict}");
        };
        check(202, "", "Sent");
        check(200, "1", "Sent");
        let failed = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error";
        check(200, &format!("{failed} 429 with ContextId tcid=0"), "Retry");
        check(200, &format!("{failed} 413 with ContextId tcid=0"), "Reject { code: \"too-large\"");
        check(200, &format!("{failed} 403 with ContextId tcid=0"), "Misconfigured");
        check(200, "Webhook message delivery failed: é", "Retry");
        check(400, "Bad payload received by generic incoming webhook.", "Reject");
        check(401, r#"{"error":{"code":"DirectApiAuthorizationRequired"}}"#, "Misconfigured");
        check(404, r#"{"error":{"code":"WorkflowNotFound"}}"#, "Misconfigured");
        check(410, "", "Misconfigured");
        check(429, "", "Retry");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_message_breaks_the_limit_or_is_formatted(message in any_message()) {
            let request = workflow().request(&message, "key");
            prop_assert!(request.body.len() <= MESSAGE_BYTES_MAX, "{}", request.body.len());
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let card = &body["attachments"][0]["content"];
            prop_assert!(card["msteams"].get("entities").is_none());
            for part in card["body"].as_array().unwrap() {
                prop_assert_eq!(&part["type"], "RichTextBlock");
            }
        }
    }
}
