//! A capability request is something a plugin asks for. Only the operator's grant takes effect.

use config::{Capability, Grants, Scope};
use contract::metadata::PluginInfo;

/// Maximum number of capability requests shown in one sentence.
const REQUESTS_SHOWN_MAX: usize = 5;

/// One capability that a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityRequest {
    /// The capability in the plugin's words.
    pub capability: String,
    pub scope: String,
    pub why: String,
    pub standing: GrantState,
}

/// How a capability request relates to the operator's grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantState {
    Granted(Scope),
    NotGranted(Scope),
    /// It can never be granted, for this reason.
    Senseless(String),
}

/// Returns the plugin's capability requests, in its order.
pub fn capability_requests(info: &PluginInfo, grants: &Grants) -> Vec<CapabilityRequest> {
    let check = |request: &contract::metadata::Request| {
        let scope = request.capability.parse().and_then(|capability: Capability| {
            Scope::new(capability, &request.scope).map_err(|problem| format!("{capability}: {problem}"))
        });
        let standing = match scope {
            Ok(scope) if grants.cover(&scope) => GrantState::Granted(scope),
            Ok(scope) => GrantState::NotGranted(scope),
            Err(problem) => GrantState::Senseless(problem),
        };
        CapabilityRequest {
            capability: request.capability.clone(),
            scope: request.scope.clone(),
            why: request.why.clone(),
            standing,
        }
    };
    info.requests.iter().map(check).collect()
}

/// A log message about a plugin's capability requests and grants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sentence {
    ToKnow(String),
    /// The operator's configuration has something that should change.
    ToChange(String),
}

pub(super) fn report(name: &str, info: &PluginInfo, grants: &Grants) -> Vec<Sentence> {
    let version = &info.version;
    let mut sentences = Vec::new();
    let open: Vec<_> = capability_requests(info, grants)
        .into_iter()
        .filter(|request| matches!(request.standing, GrantState::NotGranted(_)))
        .map(|request| format!("{} {} ({:?})", request.capability, request.scope, request.why))
        .collect();
    if !open.is_empty() {
        let more = open.len().saturating_sub(REQUESTS_SHOWN_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown = open.iter().take(REQUESTS_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        sentences.push(Sentence::ToKnow(format!(
            "{name} {version} asks for more than it is granted: {shown}{more}; see `notify-host plugin grant {name}`"
        )));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use config::{PluginConfig, Policies};
    use contract::metadata::Request;

    use super::*;

    fn grants(toml: &str) -> Grants {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("slack.toml");
        std::fs::write(&file, toml).unwrap();
        PluginConfig::read(&file, &Policies::default()).unwrap().grants
    }

    fn slack() -> PluginInfo {
        let request = |capability: &str, scope: &str, why: &str| Request {
            capability: capability.to_owned(),
            scope: scope.to_owned(),
            why: why.to_owned(),
        };
        PluginInfo {
            name: "slack".to_owned(),
            version: "1.2.0".to_owned(),
            description: String::new(),
            annotations: Vec::new(),
            config_schema: None,
            subscriptions: Vec::new(),
            requests: vec![
                request("http", "https://hooks.slack.com", "to post"),
                request("secret", "slack-token", "to sign"),
                request("sms", "+49", "to wake you"),
                request("http", "everywhere", "for fun"),
            ],
        }
    }

    #[test]
    fn what_is_asked_for_is_granted_or_not_or_makes_no_sense() {
        let standings: Vec<_> = capability_requests(&slack(), &grants("[grants]\nhttp = [\"https://*.slack.com\"]"))
            .into_iter()
            .map(|request| request.standing)
            .collect();
        assert!(matches!(&standings[0], GrantState::Granted(scope) if scope.to_string() == "https://hooks.slack.com"));
        assert!(matches!(&standings[1], GrantState::NotGranted(_)));
        assert!(matches!(&standings[2], GrantState::Senseless(problem) if problem.contains("no capability \"sms\"")));
        assert!(matches!(&standings[3], GrantState::Senseless(problem) if problem.contains("expected scheme")));
    }

    #[test]
    fn the_log_tells_the_difference() {
        let sentences = report(
            "slack",
            &slack(),
            &grants("[grants]\nhttp = [\"https://hooks.slack.com\"]\nmail = [\"*@example.com\"]"),
        );
        let expected = [Sentence::ToKnow(
            "slack 1.2.0 asks for more than it is granted: secret slack-token (\"to sign\"); see `notify-host plugin \
                 grant slack`"
                .to_owned(),
        )];
        assert_eq!(sentences, expected);
        let all = "[grants]\nhttp = [\"https://hooks.slack.com\"]\n[secrets.slack-token]\nenv = \"T\"";
        assert!(!report("slack", &slack(), &grants(all)).iter().any(|one| matches!(one, Sentence::ToKnow(_))));
    }
}
