//! Requests and mails that a plugin sends during a test, decoded for people and for scripts.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use event::pretty_json::indent;
use event::text::printable;
use event::text::shown;
use mail_parser::{Addr, HeaderValue, MessageParser, MimeHeaders as _};
use sandbox::capability::Departure;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Maximum bytes shown of one body or text.
const TEXT_BYTES_SHOWN_MAX: usize = 16 << 10;
/// Indentation of the details of a departure.
const INDENT: &str = "            ";

/// One request or mail that left the plugin.
#[derive(Debug)]
pub(super) enum SentMessage {
    Http { method: String, url: String, headers: Vec<(String, String)>, body: Vec<u8> },
    Mail(Mail),
}

/// A mail as its reader sees it.
#[derive(Debug)]
pub(super) struct Mail {
    /// Recipients of the envelope, including those that no header names.
    recipients: Vec<String>,
    headers: Vec<(String, String)>,
    text: Option<String>,
    html: Option<String>,
    html_file: Option<PathBuf>,
    attachments: Vec<Attachment>,
}

#[derive(Debug)]
struct Attachment {
    name: String,
    content_type: String,
    bytes: usize,
}

impl SentMessage {
    /// Decodes a departure. `hide` removes secret values from a text, because decoding may reveal one.
    pub(super) fn new(departure: Departure, hide: impl Fn(String) -> String) -> Self {
        match departure {
            Departure::Http { method, url, headers, body } => Self::Http { method, url, headers, body },
            Departure::Mail { recipients, message, html } => Self::Mail(Mail::new(recipients, &message, html, hide)),
        }
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Http { method, url, headers, body } => {
                writeln!(out, "{:<12}{} {}", "request", shown(method), shown(url))?;
                print_headers(out, headers)?;
                match serde_json::from_slice::<&RawValue>(body) {
                    Ok(json) => print_text(out, &indent(json))?,
                    Err(_) => match std::str::from_utf8(body) {
                        Ok(text) => print_text(out, text)?,
                        Err(_) => print_text(out, &format!("({} bytes that are no text)", body.len()))?,
                    },
                }
            }
            Self::Mail(mail) => mail.print(out)?,
        }
        writeln!(out)
    }

    pub(super) fn as_json(&self) -> Value {
        match self {
            Self::Http { method, url, headers, body } => {
                let text = std::str::from_utf8(body).ok();
                let base64 = if text.is_none() { Some(STANDARD.encode(body)) } else { None };
                json!({
                    "kind": "http", "method": method, "url": url, "headers": headers, "body": text, "body_base64": base64,
                })
            }
            Self::Mail(mail) => {
                let attachments: Vec<_> = mail
                    .attachments
                    .iter()
                    .map(|Attachment { name, content_type, bytes }| {
                        json!({ "name": name, "content_type": content_type, "bytes": bytes })
                    })
                    .collect();
                json!({
                    "kind": "mail",
                    "recipients": mail.recipients,
                    "headers": mail.headers,
                    "text": mail.text,
                    "html": mail.html,
                    "html_file": mail.html_file.as_ref().map(|file| file.display().to_string()),
                    "attachments": attachments,
                })
            }
        }
    }
}

impl Mail {
    fn new(recipients: Vec<String>, message: &[u8], html: Option<String>, hide: impl Fn(String) -> String) -> Self {
        let Some(message) = MessageParser::default().parse(message) else {
            return Self {
                recipients,
                headers: Vec::new(),
                text: None,
                html,
                html_file: None,
                attachments: Vec::new(),
            };
        };
        let headers = message
            .headers()
            .iter()
            .filter(|header| !is_of_the_form(header.name()))
            .map(|header| {
                let raw = message.header_raw(header.name().to_owned()).unwrap_or_default();
                (header.name().to_owned(), hide(decoded(&header.value, raw)))
            })
            .collect();
        let attachments = message
            .attachments()
            .map(|part| Attachment {
                name: hide(part.attachment_name().unwrap_or_default().to_owned()),
                content_type: part.content_type().map(content_type).unwrap_or_default(),
                bytes: part.len(),
            })
            .collect();
        // If a mail has only HTML, the parser would derive a text that no reader gets.
        let has_text = message.text_part(0).is_some_and(|part| part.is_content_type("text", "plain"));
        let text = if has_text { message.body_text(0).map(|text| hide(text.into_owned())) } else { None };
        Self { recipients, headers, text, html: html.map(hide), html_file: None, attachments }
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{:<12}to {}", "mail", shown(&self.recipients.join(", ")))?;
        print_headers(out, &self.headers)?;
        if let Some(text) = &self.text {
            print_text(out, text)?;
        }
        for Attachment { name, content_type, bytes } in &self.attachments {
            writeln!(out, "{:<12}{} ({}, {bytes} bytes)", "attachment", shown(name), shown(content_type))?;
        }
        if let Some(file) = &self.html_file {
            writeln!(out, "{:<12}{}", "html", shown(&file.display().to_string()))?;
        }
        Ok(())
    }
}

/// Writes the HTML of each mail into a file: the first into `file`, others into numbered files beside it. Returns their
/// number.
pub(super) fn write_html(sent: &mut [SentMessage], file: &Path) -> io::Result<usize> {
    let mut count = 0;
    for one in sent {
        let SentMessage::Mail(mail) = one else { continue };
        let Some(html) = &mail.html else { continue };
        count += 1;
        let path = numbered(file, count);
        fs::write(&path, html).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        mail.html_file = Some(path);
    }
    Ok(count)
}

/// Numbers a file name: `mail.html`, `mail-2.html`, …
fn numbered(file: &Path, number: usize) -> PathBuf {
    if number < 2 {
        return file.to_owned();
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let extension = file.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    file.with_file_name(format!("{stem}-{number}{extension}"))
}

/// Whether a header only describes the mail's encoding, which its reader never sees.
fn is_of_the_form(header: &str) -> bool {
    let header = header.to_ascii_lowercase();
    header == "mime-version" || header.starts_with("content-")
}

fn decoded(value: &HeaderValue<'_>, raw: &str) -> String {
    match value {
        HeaderValue::Text(text) => text.to_string(),
        HeaderValue::Address(addresses) => addresses.iter().map(address).collect::<Vec<_>>().join(", "),
        HeaderValue::TextList(_)
        | HeaderValue::DateTime(_)
        | HeaderValue::ContentType(_)
        | HeaderValue::Received(_)
        | HeaderValue::Empty => raw.trim().to_owned(),
    }
}

fn address(address: &Addr<'_>) -> String {
    let email = address.address.as_deref().unwrap_or_default();
    match &address.name {
        Some(name) => format!("{name} <{email}>"),
        None => email.to_owned(),
    }
}

fn content_type(kind: &mail_parser::ContentType<'_>) -> String {
    kind.subtype().map_or_else(|| kind.ctype().to_owned(), |subtype| format!("{}/{subtype}", kind.ctype()))
}

fn print_headers(out: &mut impl Write, headers: &[(String, String)]) -> io::Result<()> {
    headers.iter().try_for_each(|(name, value)| writeln!(out, "{INDENT}{}: {}", shown(name), shown(value)))
}

/// Prints a text after an empty line.
fn print_text(out: &mut impl Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let shown = &text[..text.floor_char_boundary(TEXT_BYTES_SHOWN_MAX)];
    for line in shown.lines() {
        let line = printable(line);
        writeln!(out, "{}", format!("{INDENT}{line}").trim_end())?;
    }
    if shown.len() < text.len() {
        writeln!(out, "{INDENT}… ({} bytes more)", text.len() - shown.len())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(departure: Departure) -> String {
        let mut out = Vec::new();
        SentMessage::new(departure, |text| text.replace("hunter2", "[secret token]")).print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn http(body: &[u8]) -> Departure {
        Departure::Http {
            method: "POST".to_owned(),
            url: "https://a.example/b".to_owned(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.to_vec(),
        }
    }

    #[test]
    fn a_request_is_printed_with_its_json_laid_out() {
        let head = "request     POST https://a.example/b\n            content-type: application/json\n";
        assert_eq!(
            printed(http(br#"{"b":1.10,"a":"x"}"#)),
            format!(
                "{head}\n            {{\n              \"b\": 1.10,\n              \"a\": \"x\"\n            }}\n\n"
            )
        );
        assert_eq!(printed(http(b"")), format!("{head}\n"));
        assert_eq!(printed(http(b"a\x1b[2J\n\nb")), format!("{head}\n            a\\u{{1b}}[2J\n\n            b\n\n"));
        assert_eq!(printed(http(b"\xff")), format!("{head}\n            (1 bytes that are no text)\n\n"));
        let long = printed(http(&vec![b'x'; TEXT_BYTES_SHOWN_MAX + 3]));
        assert!(long.ends_with("            … (3 bytes more)\n\n"), "{long}");
    }

    const MAIL: &str = "From: =?utf-8?b?QsO8Y2hlcg==?= <shop@example.com>\r\nTo: a@example.com, Ann <b@example.com>\r\n\
        Subject: =?utf-8?q?Caf=C3=A9_hunter?=\r\n =?utf-8?q?2?=\r\nMessage-ID: <1@example.com>\r\n\
        Date: Wed, 25 Nov 2026 04:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n\
        --m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
        --a\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
        Caf=C3=A9 hun=\r\nter2\r\n--a\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Caf\u{e9}</p>\r\n--a--\r\n\
        --m\r\nContent-Type: application/pdf; name=\"bill.pdf\"\r\nContent-Disposition: attachment; filename=\"bill.pdf\"\r\n\
        Content-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--m--\r\n";

    fn mail() -> Departure {
        Departure::Mail {
            recipients: vec!["a@example.com".to_owned(), "c@example.com".to_owned()],
            message: MAIL.as_bytes().to_vec(),
            html: Some("<p>Café hunter2</p>".to_owned()),
        }
    }

    #[test]
    fn a_mail_is_printed_as_its_reader_sees_it() {
        assert_eq!(
            printed(mail()),
            "mail        to a@example.com, c@example.com\n            From: Bücher <shop@example.com>\n            \
             To: a@example.com, Ann <b@example.com>\n            Subject: Café [secret token]\n            \
             Message-ID: 1@example.com\n            Date: Wed, 25 Nov 2026 04:00:00 +0000\n\n            \
             Café [secret token]\nattachment  bill.pdf (application/pdf, 5 bytes)\n\n"
        );
    }

    #[test]
    fn the_html_of_each_mail_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("preview.html");
        let mut sent =
            [mail(), http(b""), mail()].map(|one| SentMessage::new(one, |text| text.replace("hunter2", "*")));
        assert_eq!(write_html(&mut sent, &file).unwrap(), 2);
        assert_eq!(fs::read_to_string(&file).unwrap(), "<p>Café *</p>");
        let second = folder.path().join("preview-2.html");
        assert_eq!(sent[2].as_json()["html_file"], second.display().to_string());
        assert!(second.exists());
        assert_eq!(write_html(&mut sent[1..2], &file).unwrap(), 0);
    }
}
