//! Recipients of a mail: addresses that the operator's templates make from an event.

use minijinja::UndefinedBehavior;
use notify_plugin::template::Templates;
use notify_plugin::{Failure, mail, reject};

use crate::settings::{OneOrMore, Settings};

/// An address, and whether it contains data of the event.
#[derive(Clone, Debug)]
pub(crate) struct Recipient {
    pub(crate) address: mail::Address,
    pub(crate) is_of_event: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Recipients {
    pub(crate) to: Vec<Recipient>,
    pub(crate) cc: Vec<Recipient>,
    pub(crate) bcc: Vec<Recipient>,
    pub(crate) reply_to: Option<mail::Address>,
}

impl Recipients {
    /// Renders the recipients. Data that the event lacks renders as nothing and is not a template error.
    pub(crate) fn of(settings: &Settings, templates: &mut Templates) -> Result<Self, Failure> {
        templates.environment().set_undefined_behavior(UndefinedBehavior::Chainable);
        Ok(Self {
            to: all("to", &settings.to, templates)?,
            cc: all("cc", &settings.cc, templates)?,
            bcc: all("bcc", &settings.bcc, templates)?,
            reply_to: match &settings.reply_to {
                Some(template) => one("reply-to", template, templates)?.map(|reply_to| reply_to.address),
                None => None,
            },
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Recipient> {
        self.to.iter().chain(&self.cc).chain(&self.bcc)
    }
}

fn all(key: &str, list: &OneOrMore, templates: &Templates) -> Result<Vec<Recipient>, Failure> {
    list.iter().filter_map(|template| one(key, template, templates).transpose()).collect()
}

/// Renders at most one address: a comma in an event's data adds no recipient.
fn one(key: &str, template: &str, templates: &Templates) -> Result<Option<Recipient>, Failure> {
    let text = templates.render(key, template)?;
    let text = text.trim();
    // minijinja renders JSON's null as "none".
    if text.is_empty() || text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    if text.contains(char::is_control) {
        return Err(reject("invalid-recipient", format!("[config] {key}: there is a control character in {text:?}")));
    }
    let is_of_event = template.contains("{{") || template.contains("{%");
    Ok(Some(Recipient { address: address(text), is_of_event }))
}

/// Splits `Bob <bob@example.com>`, or takes the address alone. The host checks whether it is valid.
fn address(text: &str) -> mail::Address {
    let named = text.strip_suffix('>').and_then(|text| text.rsplit_once('<'));
    match named {
        Some((name, email)) => {
            let name = name.trim();
            let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
            mail::Address {
                email: email.trim().to_owned(),
                name: Some(name.to_owned()).filter(|name| !name.is_empty()),
            }
        }
        None => mail::Address { email: text.to_owned(), name: None },
    }
}

#[cfg(test)]
mod tests {
    use notify_plugin::testing::event;

    use super::*;
    use crate::tests::templates;

    fn check(template: &str, data: &str, expected: Option<(&str, Option<&str>, bool)>) {
        let mut templates = templates(&event("OrderCreated", data));
        let settings = Settings { to: OneOrMore::One(template.to_owned()), ..Settings::default() };
        let recipients = Recipients::of(&settings, &mut templates).ok().unwrap();
        let told: Vec<_> = recipients
            .to
            .iter()
            .map(|one| (one.address.email.as_str(), one.address.name.as_deref(), one.is_of_event))
            .collect();
        assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{template} {data}");
    }

    #[test]
    fn an_address_comes_from_the_settings_or_from_the_event() {
        check("ops@example.com", "{}", Some(("ops@example.com", None, false)));
        check("Ops Team <ops@example.com>", "{}", Some(("ops@example.com", Some("Ops Team"), false)));
        check("\"Ops, Team\" <ops@example.com>", "{}", Some(("ops@example.com", Some("Ops, Team"), false)));
        check("{{ data.email }}", r#"{"email": " a@example.com "}"#, Some(("a@example.com", None, true)));
        let data = r#"{"name": "A <b@c>", "email": "a@example.com"}"#;
        check("{{ data.name }} <{{ data.email }}>", data, Some(("a@example.com", Some("A <b@c>"), true)));
        check("{{ data.customer.email }}", "{}", None);
        check("{{ data.email }}", r#"{"email": null}"#, None);
        check("{{ data.email }}", r#"{"email": ""}"#, None);
    }

    #[test]
    fn the_event_can_add_nobody() {
        let data = r#"{"email": "a@example.com, b@example.com"}"#;
        // The host refuses it as an invalid address.
        check("{{ data.email }}", data, Some(("a@example.com, b@example.com", None, true)));
        let mut templates = templates(&event("OrderCreated", r#"{"email": "a@example.com\r\nBcc: b@example.com"}"#));
        let Err(Failure::Reject(rejection)) = Recipients::of(&Settings::default(), &mut templates) else { panic!() };
        assert_eq!(rejection.code, "invalid-recipient");
        assert!(!rejection.reason.contains(char::is_control), "{}", rejection.reason);
    }
}
