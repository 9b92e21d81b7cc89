//! Builds a message from a plugin's input: checked as a whole, bounded, and encoded so that text cannot become
//! structure.

use config::mail_address;
use contract::mail;
use lettre::Address;
use lettre::message::header::{self, ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Body, Mailbox, Mailboxes, Message, MultiPart, SinglePart};

/// Maximum bytes of texts and attachments together, before encoding.
const CONTENT_BYTES_MAX: usize = 10 << 20;
/// Maximum number of recipients. A relay must accept at least this many (RFC 5321).
const RECIPIENTS_MAX: usize = 100;
const ATTACHMENTS_MAX: usize = 32;
const SUBJECT_BYTES_MAX: usize = 1000;
/// Maximum bytes of the name of a person or a file.
const NAME_BYTES_MAX: usize = 255;
const HEADERS_MAX: usize = 32;
/// Maximum bytes of a header's value, which must fit on one line with the name.
const HEADER_BYTES_MAX: usize = 900;

/// A message ready to be handed over.
#[derive(Debug)]
pub(super) struct Composed {
    /// The recipients of the envelope, each once.
    pub(super) recipients: Vec<Address>,
    /// The message in RFC 5322 format.
    pub(super) bytes: Vec<u8>,
}

/// The parts of a message that the host adds.
pub(super) struct Frame<'a> {
    pub(super) from: &'a Mailbox,
    /// Includes the angle brackets.
    pub(super) message_id: &'a str,
    pub(super) date: std::time::SystemTime,
}

/// Returns all recipients, as the plugin wrote them and as parsed addresses.
pub(super) fn recipients(message: &mail::Message) -> Result<Vec<(&str, Address)>, String> {
    let all: Vec<_> = message.to.iter().chain(&message.cc).chain(&message.bcc).collect();
    if all.is_empty() {
        return Err("the mail has no recipient".to_owned());
    }
    if all.len() > RECIPIENTS_MAX {
        return Err(format!("the mail has {} recipients, and may have {RECIPIENTS_MAX}", all.len()));
    }
    all.into_iter().map(|one| Ok((one.email.as_str(), address(&one.email)?))).collect()
}

/// Builds the message. The error is one sentence.
pub(super) fn compose(message: mail::Message, frame: &Frame<'_>) -> Result<Composed, String> {
    check_bounds(&message)?;
    let mut recipients: Vec<Address> = recipients(&message)?.into_iter().map(|(_, address)| address).collect();
    recipients.sort();
    recipients.dedup();
    let mut builder = Message::builder()
        .date(frame.date)
        .message_id(Some(frame.message_id.to_owned()))
        .header(header::From::from(Mailboxes::from(frame.from.clone())))
        .subject(text("subject", &message.subject, SUBJECT_BYTES_MAX)?);
    // Set all at once: to add one, the builder would parse its own output.
    if !message.to.is_empty() {
        builder = builder.header(header::To::from(mailboxes(&message.to)?));
    }
    if !message.cc.is_empty() {
        builder = builder.header(header::Cc::from(mailboxes(&message.cc)?));
    }
    if message.to.is_empty() && message.cc.is_empty() {
        builder = builder.raw_header(raw("To", "undisclosed-recipients:;"));
    }
    if let Some(reply_to) = &message.reply_to {
        builder = builder.header(header::ReplyTo::from(Mailboxes::from(mailbox(reply_to)?)));
    }
    // RFC 3834: keeps automatic responders from replying.
    builder = builder.raw_header(raw("Auto-Submitted", "auto-generated"));
    for header in headers(&message.headers)? {
        builder = builder.raw_header(header);
    }
    // The envelope is explicit, because hidden recipients are in no header.
    let envelope = lettre::address::Envelope::new(Some(frame.from.email.clone()), recipients.clone());
    builder = builder.envelope(envelope.map_err(|error| error.to_string())?);
    let part = content(message.text, message.html)?;
    let built = if message.attachments.is_empty() {
        match part {
            MailContent::Single(part) => builder.singlepart(part),
            MailContent::Alternative(parts) => builder.multipart(parts),
        }
    } else {
        let mixed = MultiPart::mixed();
        let mut mixed = match part {
            MailContent::Single(part) => mixed.singlepart(part),
            MailContent::Alternative(parts) => mixed.multipart(parts),
        };
        for attachment in message.attachments {
            mixed = mixed.singlepart(attached(attachment)?);
        }
        builder.multipart(mixed)
    };
    let bytes = built.map_err(|error| format!("the mail cannot be built: {error}"))?.formatted();
    Ok(Composed { recipients, bytes })
}

fn check_bounds(message: &mail::Message) -> Result<(), String> {
    let texts = [&message.text, &message.html].into_iter().flatten().map(String::len);
    let bytes: usize = texts.chain(message.attachments.iter().map(|attachment| attachment.content.len())).sum();
    if bytes > CONTENT_BYTES_MAX {
        return Err(format!(
            "the mail has {bytes} bytes of text and attachments, and may have {} MiB",
            CONTENT_BYTES_MAX >> 20
        ));
    }
    if message.attachments.len() > ATTACHMENTS_MAX {
        return Err(format!("the mail has {} attachments, and may have {ATTACHMENTS_MAX}", message.attachments.len()));
    }
    if message.headers.len() > HEADERS_MAX {
        return Err(format!("the mail has {} headers of its own, and may have {HEADERS_MAX}", message.headers.len()));
    }
    Ok(())
}

/// Checks a text that must be on one line. Encoding would neutralise a line feed, but one here is a sign of an
/// attack.
fn text(what: &str, text: &str, bytes_max: usize) -> Result<String, String> {
    if let Some(character) = text.chars().find(|character| character.is_control()) {
        return Err(format!("the {what} has the control character {character:?} in it"));
    }
    if text.len() > bytes_max {
        return Err(format!("the {what} has {} bytes, and may have {bytes_max}", text.len()));
    }
    Ok(text.to_owned())
}

fn address(text: &str) -> Result<Address, String> {
    mail_address(text).map_err(|why| format!("{text:?} is no mail address: {why}"))
}

fn mailbox(one: &mail::Address) -> Result<Mailbox, String> {
    let name = text("name of a recipient", one.name.as_deref().unwrap_or_default(), NAME_BYTES_MAX)?;
    let name = Some(name.trim()).filter(|name| !name.is_empty()).map(str::to_owned);
    Ok(Mailbox::new(name, address(&one.email)?))
}

fn mailboxes(all: &[mail::Address]) -> Result<Mailboxes, String> {
    all.iter().map(mailbox).collect::<Result<Vec<_>, _>>().map(Mailboxes::from)
}

fn headers(headers: &[(String, String)]) -> Result<Vec<HeaderValue>, String> {
    let mut seen: Vec<String> = Vec::new();
    let mut made = Vec::new();
    for (name, value) in headers {
        let lower = name.to_ascii_lowercase();
        let is_name = name.len() <= 76 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let rest = lower.strip_prefix("x-").or_else(|| lower.strip_prefix("list-"));
        let is_allowed = rest.is_some_and(|rest| !rest.is_empty()) || matches!(&*lower, "references" | "in-reply-to");
        if !is_name || !is_allowed {
            return Err(format!(
                "the header {name:?} is not a plugin's to set: there are X-…, List-…, References and In-Reply-To"
            ));
        }
        let value = text(&format!("header {name}"), value, HEADER_BYTES_MAX)?;
        if seen.contains(&lower) {
            return Err(format!("the header {name} is there twice"));
        }
        seen.push(lower);
        let name = HeaderName::new_from_ascii(name.clone()).map_err(|error| error.to_string())?;
        made.push(HeaderValue::new(name, value));
    }
    Ok(made)
}

fn raw(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

enum MailContent {
    Single(SinglePart),
    Alternative(MultiPart),
}

fn content(text: Option<String>, html: Option<String>) -> Result<MailContent, String> {
    let part = |content_type: ContentType, text: String| -> Result<SinglePart, String> {
        if text.contains('\0') {
            return Err("the text of the mail has a NUL in it".to_owned());
        }
        // Some treat a lone carriage return as a line end and others do not, which can turn one mail into two.
        let lines = if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text };
        Ok(SinglePart::builder().header(content_type).body(lines))
    };
    match (text, html) {
        (Some(text), None) => Ok(MailContent::Single(part(ContentType::TEXT_PLAIN, text)?)),
        (None, Some(html)) => Ok(MailContent::Single(part(ContentType::TEXT_HTML, html)?)),
        // RFC 2046: the preferred alternative comes last.
        (Some(text), Some(html)) => Ok(MailContent::Alternative(
            MultiPart::alternative()
                .singlepart(part(ContentType::TEXT_PLAIN, text)?)
                .singlepart(part(ContentType::TEXT_HTML, html)?),
        )),
        (None, None) => Err("the mail has neither text nor HTML".to_owned()),
    }
}

fn attached(attachment: mail::Attachment) -> Result<SinglePart, String> {
    let name = text("name of an attachment", &attachment.file_name, NAME_BYTES_MAX)?;
    if name.trim().is_empty() || name.contains(['/', '\\']) {
        return Err(format!("the attachment's name {name:?} is none that a file can have"));
    }
    let declared = text("type of an attachment", &attachment.content_type, NAME_BYTES_MAX)?;
    let lower = declared.to_ascii_lowercase();
    let wrong = || format!("an attachment has the type {declared:?}; expected one such as \"application/json\"");
    // Composite types would have to be encoded part by part.
    if lower.starts_with("multipart/") || lower.starts_with("message/") || !declared.is_ascii() {
        return Err(wrong());
    }
    let content_type = ContentType::parse(&declared).map_err(|_| wrong())?;
    // Base64 keeps the bytes unchanged, whatever they are.
    let body = Body::new_with_encoding(attachment.content, ContentTransferEncoding::Base64)
        .map_err(|_| "an attachment cannot be encoded".to_owned())?;
    Ok(Attachment::new(name).body(body, content_type))
}

#[cfg(test)]
mod tests;
