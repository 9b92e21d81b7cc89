//! The operator's settings in `[config]`, which the host has checked against the schema.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    pub(crate) to: OneOrMore,
    pub(crate) cc: OneOrMore,
    pub(crate) bcc: OneOrMore,
    pub(crate) reply_to: Option<String>,
    #[serde(flatten)]
    pub(crate) texts: Texts,
    pub(crate) events: BTreeMap<String, Texts>,
    pub(crate) shop: String,
    pub(crate) link: Option<String>,
    pub(crate) footer: Option<String>,
    pub(crate) accent: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) attach_event: bool,
    pub(crate) no_recipient: NoRecipient,
}

/// Templates; missing ones are built in.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Texts {
    pub(crate) subject: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) html: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NoRecipient {
    #[default]
    Reject,
    Skip,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            to: OneOrMore::One("{{ data.email }}".to_owned()),
            cc: OneOrMore::default(),
            bcc: OneOrMore::default(),
            reply_to: None,
            texts: Texts::default(),
            events: BTreeMap::new(),
            shop: String::new(),
            link: None,
            footer: None,
            accent: "#0f766e".to_owned(),
            headers: BTreeMap::new(),
            attach_event: false,
            no_recipient: NoRecipient::default(),
        }
    }
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl OneOrMore {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one).iter(),
            Self::More(more) => more.iter(),
        }
        .map(String::as_str)
    }
}

impl Settings {
    /// Returns the template for this event type and the key that it is set by. Returns `None` if it is not set.
    pub(crate) fn text(
        &self,
        event_type: &str,
        name: &str,
        of: impl Fn(&Texts) -> Option<&String>,
    ) -> Option<(String, &str)> {
        // `plugin inspect` prints unset templates as empty strings.
        let of = |texts| of(texts).map(String::as_str).filter(|text| !text.is_empty());
        let own = self.events.get(event_type).and_then(of);
        let own = own.map(|text| (format!("events.{event_type}.{name}"), text));
        own.or_else(|| Some((name.to_owned(), of(&self.texts)?)))
    }
}
