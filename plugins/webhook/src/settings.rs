//! The operator's settings in `[config]`, which the host has checked against the plugin's schema.

use std::collections::BTreeMap;

use notify_plugin::http::Meaning;
use notify_plugin::{Failure, misconfigured};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) method: Method,
    format: Option<Format>,
    template: Option<String>,
    content_type: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, HeaderValue>,
    /// Names of secrets.
    #[serde(default)]
    pub(crate) sign: Vec<String>,
    #[serde(default)]
    outcomes: BTreeMap<String, Meaning>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Method {
    #[default]
    Post,
    Put,
    Patch,
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Structured,
    Binary,
    Template,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum HeaderValue {
    Text(String),
    Secret {
        secret: String,
        #[serde(default)]
        prefix: String,
    },
}

/// The form of an event's body.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    Structured,
    Binary,
    Template { template: &'a str, content_type: &'a str },
}

impl Settings {
    pub(crate) fn body(&self) -> Result<Body<'_>, Failure> {
        let content_type = self.content_type.as_deref().unwrap_or("application/json");
        match (self.format, &self.template) {
            (None | Some(Format::Template), Some(template)) => Ok(Body::Template { template, content_type }),
            (None | Some(Format::Structured), None) => Ok(Body::Structured),
            (Some(Format::Binary), None) => Ok(Body::Binary),
            (Some(Format::Template), None) => {
                Err(misconfigured("[config] format is \"template\", and there is no template"))
            }
            (Some(Format::Structured | Format::Binary), Some(_)) => {
                Err(misconfigured("[config] has a template and a format that uses none: leave out one of them"))
            }
        }
    }

    /// Returns the statuses with a special meaning at this receiver.
    pub(crate) fn meanings(&self) -> Result<Vec<(u16, Meaning)>, Failure> {
        let meaning = |(status, meaning): (&String, &Meaning)| match status.parse() {
            Ok(status) => Ok((status, *meaning)),
            Err(_) => Err(misconfigured(format!("[config] outcomes: {status:?} is no status of HTTP"))),
        };
        self.outcomes.iter().map(meaning).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn settings(json: &str) -> Settings {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
    }

    #[test]
    fn the_body_is_structured_unless_something_else_is_said() {
        let body = |json: &str| settings(json).body().map(|body| format!("{body:?}")).ok();
        let template = Some(r#"Template { template: "{}", content_type: "application/json" }"#.to_owned());
        for (json, expected) in [
            (r#"{"url": ""}"#, Some("Structured".to_owned())),
            (r#"{"url": "", "format": "structured"}"#, Some("Structured".to_owned())),
            (r#"{"url": "", "format": "binary"}"#, Some("Binary".to_owned())),
            (r#"{"url": "", "template": "{}"}"#, template.clone()),
            (r#"{"url": "", "format": "template", "template": "{}"}"#, template),
            (r#"{"url": "", "format": "template"}"#, None),
            (r#"{"url": "", "format": "binary", "template": "{}"}"#, None),
        ] {
            assert_eq!(body(json), expected, "{json}");
        }
    }

    #[test]
    fn statuses_may_have_another_meaning() {
        let meanings = settings(r#"{"url": "", "outcomes": {"409": "done", "401": "misconfigured"}}"#).meanings();
        assert_eq!(meanings.ok(), Some(vec![(401, Meaning::Misconfigured), (409, Meaning::Done)]));
        assert!(settings(r#"{"url": "", "outcomes": {"4xx": "done"}}"#).meanings().is_err());
    }
}
