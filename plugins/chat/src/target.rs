//! A target is one destination for notifications, as the operator's configuration names it.

use crate::address::Address;
use crate::message::Severity;
use crate::service::Service;
use crate::service::discord::Discord;
use crate::service::gotify::Gotify;
use crate::service::matrix::Matrix;
use crate::service::mattermost::Mattermost;
use crate::service::ntfy::Ntfy;
use crate::service::slack::Slack;
use crate::service::teams::Teams;
use crate::service::telegram::Telegram;
use crate::settings::{Format, Repeats, Settings};

pub(crate) struct Target {
    pub(crate) service: Box<dyn Service>,
    pub(crate) format: Format,
    /// Minimum severity of notifications for this target.
    pub(crate) severity: Severity,
}

impl Target {
    /// Parses a target. The error says what was expected, and contains no token.
    pub(crate) fn parse(text: &str, format: Format) -> Result<Self, String> {
        let mut address = Address::parse(text)?;
        // A Teams URL contains its own authorization, so all of it belongs to the service.
        if is_teams(&address) {
            return Ok(Self { service: Box::new(Teams::of_url(text)), format, severity: Severity::Info });
        }
        let format = match address.take("format").as_deref() {
            None => format,
            Some("text") => Format::Text,
            Some("markup") => Format::Markup,
            Some(other) => return Err(format!("format: expected text or markup, got {other:?}")),
        };
        let severity = match address.take("severity") {
            None => Severity::Info,
            Some(text) => Severity::of(&text)
                .ok_or_else(|| format!("severity: expected info, success, warning or error, got {text:?}"))?,
        };
        Ok(Self { service: service(address)?, format, severity })
    }
}

fn service(address: Address) -> Result<Box<dyn Service>, String> {
    const NO_USER: &str = "what stands before the @ has no meaning there";
    let takes_user = matches!(&*address.scheme, "ntfy" | "ntfys" | "matrix" | "matrixs");
    if address.user.is_some() && !takes_user {
        return Err(NO_USER.to_owned());
    }
    Ok(match &*address.scheme {
        "slack" => Box::new(Slack::parse(address)?),
        "discord" => Box::new(Discord::parse(address)?),
        "workflow" | "workflows" => Box::new(Teams::parse_workflow(address)?),
        "msteams" => Box::new(Teams::parse_connector(address)?),
        "mmost" | "mmosts" => Box::new(Mattermost::parse(address)?),
        "tgram" => Box::new(Telegram::parse(address)?),
        "ntfy" | "ntfys" => Box::new(Ntfy::parse(address)?),
        "gotify" | "gotifys" => Box::new(Gotify::parse(address)?),
        "matrix" | "matrixs" => Box::new(Matrix::parse(address)?),
        "http" | "https" => return of_url(address),
        other => {
            return Err(format!(
                "there is no service {other:?}; there are slack, discord, workflows, msteams, mmosts, tgram, ntfys, gotifys \
                 and matrixs"
            ));
        }
    })
}

/// Recognizes a service by its own URL.
fn of_url(address: Address) -> Result<Box<dyn Service>, String> {
    let host = address.host.to_ascii_lowercase();
    let host = host.split(':').next().unwrap_or_default();
    match host {
        "hooks.slack.com" => Ok(Box::new(Slack::of_url(address)?)),
        "discord.com" | "discordapp.com" | "ptb.discord.com" | "canary.discord.com" => {
            Ok(Box::new(Discord::of_url(address)?))
        }
        "ntfy.sh" => Ok(Box::new(Ntfy::parse(Address { scheme: "ntfys".to_owned(), ..address })?)),
        _ if address.segments.iter().any(|segment| segment == "hooks") => Ok(Box::new(Mattermost::of_url(address)?)),
        _ => Err("it is no URL of a service that is known by it; write it as slack://, discord://, workflows://, \
                  mmosts://, tgram://, ntfys://, gotifys:// or matrixs://"
            .to_owned()),
    }
}

/// Returns whether the URL's host belongs to Teams workflows or connectors.
fn is_teams(address: &Address) -> bool {
    let host = address.host.to_ascii_lowercase();
    let host = host.split(':').next().unwrap_or_default();
    address.scheme == "https"
        && [".logic.azure.com", ".logic.azure.us", ".api.powerplatform.com", ".webhook.office.com"]
            .iter()
            .any(|suffix| host.ends_with(suffix))
}

/// Returns all targets in sending order. Targets that recognize repetitions come first, so that a later target's
/// failure repeats nothing there.
pub(crate) fn targets(settings: &Settings) -> Result<Vec<Target>, String> {
    let parse = |(index, text): (usize, &String)| {
        Target::parse(text, settings.format).map_err(|fault| format!("targets[{index}]: {fault}"))
    };
    let mut targets = settings.targets.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    if targets.is_empty() {
        return Err("targets: there is none".to_owned());
    }
    targets.sort_by_key(|target| !target.service.recognises_repetitions());
    let forgetful: Vec<_> = targets
        .iter()
        .filter(|target| !target.service.recognises_repetitions())
        .map(|target| target.service.label())
        .collect();
    if forgetful.len() > 1 && settings.repeats == Repeats::Refuse {
        return Err(format!(
            "targets: when one of {} fails, the event is tried again, and those before it would tell it twice; give each a \
             toml of its own with wasm = \"chat.wasm\", or say repeats = \"allow\"",
            forgetful.join(", ")
        ));
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let told = match Target::parse(text, Format::Text) {
            Ok(target) => target.service.label(),
            Err(fault) => fault,
        };
        assert!(told.contains(expected), "{text}: {told}");
    }

    #[test]
    fn a_target_is_known_by_its_url() {
        for (text, expected) in [
            ("slack://T/B/{secret:s}", "slack"),
            ("slack://{secret:s}/#general", "slack #general"),
            ("https://hooks.slack.com/services/T/B/{secret:s}", "slack"),
            ("discord://1/{secret:d}", "discord"),
            ("https://discord.com/api/webhooks/1/{secret:d}", "discord"),
            ("https://discordapp.com/api/webhooks/1/{secret:d}?format=markup", "discord"),
            ("workflows://a.logic.azure.com/w/{secret:t}", "teams"),
            (
                "https://a.westeurope.logic.azure.com:443/workflows/w/triggers/manual/paths/invoke?sv=1.0&sig={secret:t}",
                "teams",
            ),
            (
                "https://x.a.environment.api.powerplatform.com:443/powerautomate/automations/direct/workflows/w?sig={secret:t}",
                "teams",
            ),
            ("msteams://a/b/c/{secret:t}", "teams"),
            ("mmosts://chat.example/{secret:m}?channel=town", "mattermost town"),
            ("https://chat.example/hooks/{secret:m}", "mattermost"),
            ("tgram://{secret:t}/12345", "telegram 12345"),
            ("ntfy://orders", "ntfy orders"),
            ("https://ntfy.sh/orders", "ntfy orders"),
            ("gotifys://push.example/{secret:g}", "gotify"),
            ("matrixs://{secret:m}@matrix.example/!r:matrix.example", "matrix !r:matrix.example"),
            ("https://evil.example/x?.logic.azure.com", "it is no URL of a service"),
            ("https://logic.azure.com.evil.example/x", "it is no URL of a service"),
            ("irc://a/b", "there is no service \"irc\""),
            ("slack://bot@T/B/x", "before the @"),
            ("ntfy://orders?severity=loud", "severity: expected"),
            ("ntfy://orders?format=html", "format: expected"),
            ("ntfy://orders?a=b", "there is no option \"a\""),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn no_fault_tells_a_token() {
        for text in [
            "slack://canary-token",
            "slack://a/b/c/canary",
            "discord://canary",
            "matrixs://a:canary@b/!c",
            "gotifys://canary",
        ] {
            let fault = Target::parse(text, Format::Text).err().unwrap();
            assert!(!fault.contains("canary"), "{fault}");
        }
    }

    #[test]
    fn targets_that_would_tell_twice_are_refused_unless_that_is_allowed() {
        let of = |json: serde_json::Value| {
            let settings: Settings = serde_json::from_value(json).unwrap();
            targets(&settings)
                .map(|targets| targets.iter().map(|target| target.service.label()).collect::<Vec<_>>().join(", "))
        };
        let (slack, discord, matrix, ntfy) = ("slack://T/B/x", "discord://1/x", "matrixs://t@a/!b", "ntfy://orders");
        assert_eq!(of(serde_json::json!({"targets": [slack]})), Ok("slack".to_owned()));
        assert_eq!(
            of(serde_json::json!({"targets": [slack, matrix, ntfy]})),
            Ok("matrix !b, ntfy orders, slack".to_owned())
        );
        let fault = of(serde_json::json!({"targets": [slack, matrix, discord]})).unwrap_err();
        assert!(fault.contains("when one of slack, discord fails"), "{fault}");
        let allowed = of(serde_json::json!({"targets": [slack, discord, matrix], "repeats": "allow"}));
        assert_eq!(allowed, Ok("matrix !b, slack, discord".to_owned()));
        assert!(of(serde_json::json!({"targets": []})).is_err());
        assert!(of(serde_json::json!({"targets": ["ntfy://a", "x"]})).unwrap_err().starts_with("targets[1]: "));
    }
}
