//! Sends a mail for each event, through the host's relay.
//!
//! The operator's templates determine recipients and text. Without a template, each order event gets a built-in mail.
//! Every other event gets one that shows its data.

mod recipients;
mod rows;
mod settings;
mod wording;

use minijinja::value::Serde;
use minijinja::{UndefinedBehavior, Value};
use notify_plugin::mail::Message;
use notify_plugin::template::{Escape, Templates};
use notify_plugin::{
    Delivery, Event, Failure, Handled, HostError, Info, Plugin, done_with, misconfigured, reject, skipped,
};

use crate::recipients::Recipients;
use crate::settings::{NoRecipient, Settings};

const CONFIG_SCHEMA: &str = include_str!("schema.json");
const BUILT_IN_TEXT: &str = include_str!("templates/mail.txt");
const BUILT_IN_HTML: &str = include_str!("templates/mail.html");
const SUBJECT_CHARACTERS_MAX: usize = 200;
const BUILT_IN_SUBJECT: &str = "{{ type }}{{ number }}";

struct Email;

impl Plugin for Email {
    fn describe() -> Info {
        let info =
            Info::new("email", env!("CARGO_PKG_VERSION"), "Sends a mail for each event, through the host's relay")
                .annotation("license", env!("CARGO_PKG_LICENSE"))
                .config_schema(CONFIG_SCHEMA)
                .request(
                    "mail",
                    "*@example.com",
                    "it stands for those who get mail: write your own addresses or domains in its place",
                );
        let types = ["Created", "Paid", "Shipped", "Delivered", "Canceled", "Refunded"];
        let info = types.iter().fold(info, |info, what| info.subscribe(format!("Order{what}")));
        info.subscribe("order.*")
    }

    fn handle(event: Event, delivery: Delivery) -> Handled {
        let settings: Settings = notify_plugin::config()?;
        let mut templates = Templates::new(&event, &delivery);
        let recipients = Recipients::of(&settings, &mut templates)?;
        if recipients.iter().next().is_none() {
            let reason = "the event has no address for it: nothing comes of to, cc and bcc in [config]";
            return match settings.no_recipient {
                NoRecipient::Reject => Err(reject("no-recipient", reason)),
                NoRecipient::Skip => skipped(reason),
            };
        }
        let message = message(&settings, &event, &recipients, &mut templates)?;
        match message.send() {
            Ok(message_id) => done_with(message_id),
            Err(error) => Err(failure(error, &recipients)),
        }
    }
}

notify_plugin::export!(Email);

fn message(
    settings: &Settings,
    event: &Event,
    recipients: &Recipients,
    templates: &mut Templates,
) -> Result<Message, Failure> {
    let texts = texts(settings, event, templates)?;
    let mut message = Message::new(texts.subject);
    for one in &recipients.to {
        message = message.to(one.address.clone());
    }
    for one in &recipients.cc {
        message = message.cc(one.address.clone());
    }
    for one in &recipients.bcc {
        message = message.bcc(one.address.clone());
    }
    if let Some(reply_to) = &recipients.reply_to {
        message = message.reply_to(reply_to.clone());
    }
    if let Some(text) = texts.text {
        message = message.text(text);
    }
    if let Some(html) = texts.html {
        message = message.html(html);
    }
    for (name, template) in &settings.headers {
        let value = one_line(&templates.render(&format!("headers.{name}"), template)?);
        if !value.is_empty() {
            message = message.header(name, value);
        }
    }
    if settings.attach_event {
        message = message.attach("event.json", "application/json", event.data.as_bytes());
    }
    Ok(message)
}

struct Rendered {
    subject: String,
    text: Option<String>,
    html: Option<String>,
}

fn texts(settings: &Settings, event: &Event, templates: &mut Templates) -> Result<Rendered, Failure> {
    let wording = wording::of(&event.event_type);
    let data = data_of(event);
    // Leave out a link or footer that does not suit the event. An error in the other texts fails the event.
    let link = built_in(templates, "link", settings.link.as_deref(), Escape::Url)?;
    // Drop links of other schemes, because the event could make them run code when clicked.
    let link = if link.starts_with("https://") || link.starts_with("http://") { link } else { String::new() };
    let footer = built_in(templates, "footer", settings.footer.as_deref(), Escape::Nothing)?;
    let environment = templates.environment();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.add_global("headline", wording.as_ref().map_or(event.event_type.as_str(), |wording| wording.headline));
    environment.add_global("lead", wording.as_ref().map_or("This is what happened:", |wording| wording.lead));
    environment.add_global("number", rows::number(event, &data));
    environment.add_global("rows", Value::from(Serde(rows::rows(event, &data, wording.is_some()))));
    environment.add_global("shop", settings.shop.as_str());
    environment.add_global("accent", settings.accent.as_str());
    environment.add_global("link", link);
    environment.add_global("footer", footer);

    let event_type = event.event_type.as_str();
    let default_subject = wording.as_ref().map_or(BUILT_IN_SUBJECT, |wording| wording.subject);
    let (key, template) = settings
        .text(event_type, "subject", |texts| texts.subject.as_ref())
        .unwrap_or_else(|| ("subject".to_owned(), default_subject));
    let subject = shortened(&one_line(&templates.render(&key, template)?));
    let text = settings.text(event_type, "text", |texts| texts.text.as_ref());
    let html = settings.text(event_type, "html", |texts| texts.html.as_ref());
    // An operator who writes only one of them does not want the built-in text in the other.
    let (text, html) = match (text, html) {
        (None, None) => (Some(("text".to_owned(), BUILT_IN_TEXT)), Some(("html".to_owned(), BUILT_IN_HTML))),
        (text, html) => (text, html),
    };
    let text = text.map(|(key, template)| templates.render(&key, template)).transpose()?;
    let html = html.map(|(key, template)| templates.render_for(Escape::Html, &key, template)).transpose()?;
    Ok(Rendered { subject, text, html })
}

/// Renders a template that only the built-in mail uses.
fn built_in(templates: &Templates, key: &str, template: Option<&str>, escape: Escape) -> Result<String, Failure> {
    template.map_or_else(|| Ok(String::new()), |template| templates.render_for(escape, key, template))
}

fn data_of(event: &Event) -> serde_json::Value {
    serde_json::from_str(&event.data).unwrap_or_default()
}

/// Replaces line ends and other control characters by spaces. A line feed in event data must not lose the mail.
fn one_line(text: &str) -> String {
    let blank = |character: char| if character.is_control() { ' ' } else { character };
    text.chars().map(blank).collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Shortens a subject. A long product name must not lose the mail either.
fn shortened(subject: &str) -> String {
    match subject.char_indices().nth(SUBJECT_CHARACTERS_MAX - 1) {
        Some((at, last)) if at + last.len_utf8() < subject.len() => format!("{}…", &subject[..at]),
        _ => subject.to_owned(),
    }
}

/// Turns the host's error into the outcome that it means for a mail. An ungranted address that came from the event is
/// the event's fault, and stops no other mail.
fn failure(error: HostError, recipients: &Recipients) -> Failure {
    match error {
        HostError::Denied(reason) => {
            // The host's error names the recipient.
            let meant = recipients.iter().find(|one| one.is_of_event && names(&reason, &one.address.email));
            match meant {
                Some(_) => reject("recipient-not-granted", reason),
                None => misconfigured(reason),
            }
        }
        HostError::Invalid(reason) => reject("invalid-mail", reason),
        HostError::Refused(reason) => reject("refused", reason),
        other => other.into(),
    }
}

fn names(reason: &str, email: &str) -> bool {
    !email.is_empty() && reason.contains(&format!("the recipient {email} "))
}

#[cfg(test)]
mod tests;
