use std::time::{Duration, SystemTime};

use mail_parser::{MessageParser, MimeHeaders as _};

use super::*;

fn address_of(email: &str, name: Option<&str>) -> mail::Address {
    mail::Address { email: email.to_owned(), name: name.map(str::to_owned) }
}

fn message() -> mail::Message {
    mail::Message {
        to: vec![address_of("bob@example.com", Some("Bob"))],
        cc: Vec::new(),
        bcc: Vec::new(),
        reply_to: None,
        subject: "Hello".to_owned(),
        text: Some("Hello!\n".to_owned()),
        html: None,
        attachments: Vec::new(),
        headers: Vec::new(),
    }
}

fn composed(message: mail::Message) -> Result<Composed, String> {
    let from = "\"Büro, München\" <shop@example.com>".parse().unwrap();
    let date = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
    compose(message, &Frame { from: &from, message_id: "<a.1@example.com>", date })
}

/// Checks that the message can pass any relay: ASCII, lines of bounded length that end in CRLF.
fn wire(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.is_ascii());
    for line in text.split("\r\n") {
        assert!(!line.contains(['\r', '\n', '\0']) && line.len() <= 998, "{line:?}");
    }
    text
}

#[test]
fn what_arrives_is_what_was_meant() {
    let subject = format!("Bestellung 🛒 für „Jürgen“ {}", "überlang ".repeat(40).trim_end());
    let text = format!("Grüße\r\n.\r\nFrom here\r{}\n.\n", "no-space".repeat(500));
    let html = "<p>Grüße</p>".to_owned();
    let bytes: Vec<u8> = (0..=255).collect();
    let built = composed(mail::Message {
        to: vec![
            address_of("bob@bücher.example", Some("Bob \"the\" Büilder, Esq.")),
            address_of("eve@Example.COM", None),
        ],
        cc: vec![address_of("eve@example.com", Some("Eve"))],
        bcc: vec![address_of("hidden@example.org", Some("Hidden"))],
        reply_to: Some(address_of("help@example.com", Some("Hilfe"))),
        subject: subject.clone(),
        text: Some(text.clone()),
        html: Some(html.clone()),
        attachments: vec![mail::Attachment {
            file_name: "Rechnung „März“ 2026.bin".to_owned(),
            content_type: "application/octet-stream".to_owned(),
            content: bytes.clone(),
        }],
        headers: vec![
            ("X-Order".to_owned(), "4711 ✓".to_owned()),
            ("List-Unsubscribe".to_owned(), format!("<https://example.com/{}>", "u".repeat(300))),
        ],
    })
    .unwrap();
    let recipients: Vec<_> = built.recipients.iter().map(ToString::to_string).collect();
    assert_eq!(recipients, ["bob@xn--bcher-kva.example", "eve@example.com", "hidden@example.org"], "each once");
    let raw = wire(&built.bytes);
    // The random boundary between parts may contain "bcc" by chance.
    let has_bcc = raw.to_lowercase().lines().any(|line| line.starts_with("bcc"));
    assert!(!raw.to_lowercase().contains("hidden") && !has_bcc, "{raw}");

    let mail = MessageParser::default().parse(&built.bytes).unwrap();
    assert_eq!(mail.subject(), Some(&*subject));
    let names = |address: Option<&mail_parser::Address<'_>>| -> Vec<_> {
        let all = address.unwrap().iter();
        all.map(|one| (one.name().map(str::to_owned), one.address().unwrap().to_owned())).collect()
    };
    assert_eq!(names(mail.from()), [(Some("Büro, München".to_owned()), "shop@example.com".to_owned())]);
    assert_eq!(
        names(mail.to()),
        [
            (Some("Bob \"the\" Büilder, Esq.".to_owned()), "bob@xn--bcher-kva.example".to_owned()),
            (None, "eve@example.com".to_owned()),
        ]
    );
    assert_eq!(names(mail.reply_to()), [(Some("Hilfe".to_owned()), "help@example.com".to_owned())]);
    assert_eq!(mail.message_id(), Some("a.1@example.com"));
    assert_eq!(mail.date().unwrap().to_timestamp(), 1_800_000_000);
    let header = |name: &str| mail.header_raw(name).map(|value| value.trim().to_owned());
    assert_eq!(header("Auto-Submitted").as_deref(), Some("auto-generated"));
    assert_eq!(header("MIME-Version").as_deref(), Some("1.0"));
    let parser = MessageParser::new().with_mime_headers().header_text("X-Order");
    assert_eq!(parser.parse(&built.bytes).unwrap().header("X-Order").unwrap().as_text(), Some("4711 ✓"));
    assert_eq!(header("List-Unsubscribe").unwrap().len(), 300 + "<https://example.com/>".len());
    // Only line ends change, to those of mail.
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    assert_eq!(mail.body_text(0).unwrap().replace("\r\n", "\n"), lines);
    assert_eq!(mail.body_html(0).unwrap(), html);
    let attachment = mail.attachment(0).unwrap();
    assert_eq!(attachment.attachment_name(), Some("Rechnung „März“ 2026.bin"));
    assert_eq!(attachment.contents(), bytes);
    assert_eq!(mail.attachment_count(), 1);
}

type Change = Box<dyn Fn(&mut mail::Message, String)>;

#[test]
fn no_text_can_be_a_header() {
    let evil = "x\r\nBcc: eve@example.org";
    let cases: Vec<Change> = vec![
        Box::new(|mail, text| mail.subject = text),
        Box::new(|mail, text| mail.to[0].name = Some(text)),
        Box::new(|mail, text| mail.to[0].email = text),
        Box::new(|mail, text| mail.cc = vec![address_of(&text, None)]),
        Box::new(|mail, text| mail.bcc = vec![address_of(&text, None)]),
        Box::new(|mail, text| mail.reply_to = Some(address_of(&text, None))),
        Box::new(|mail, text| mail.reply_to = Some(address_of("a@example.com", Some(&text)))),
        Box::new(|mail, text| mail.headers = vec![("X-A".to_owned(), text)]),
        Box::new(|mail, text| mail.headers = vec![(text, "b".to_owned())]),
        Box::new(|mail, text| mail.attachments = vec![attachment(&text, "text/plain")]),
        Box::new(|mail, text| mail.attachments = vec![attachment("a", &text)]),
    ];
    for (number, change) in cases.iter().enumerate() {
        for text in [evil, "x\nBcc: eve@example.org", "x\rBcc: eve@example.org", "x\0y", "\r\n\r\n<b>body</b>"] {
            for text in [text.to_owned(), format!("{text}@example.com"), format!("a@example.com{text}")] {
                let mut mail = message();
                change(&mut mail, text.clone());
                let problem = composed(mail).map(|built| String::from_utf8(built.bytes)).unwrap_err();
                assert!(!problem.contains(['\r', '\n', '\0']), "{number}: {text:?}: {problem:?}");
            }
        }
    }
}

fn attachment(name: &str, content_type: &str) -> mail::Attachment {
    mail::Attachment { file_name: name.to_owned(), content_type: content_type.to_owned(), content: vec![1] }
}

#[test]
fn what_is_no_mail_is_refused_with_the_reason() {
    let check = |change: &dyn Fn(&mut mail::Message), expected: &str| {
        let mut mail = message();
        change(&mut mail);
        let problem = composed(mail).unwrap_err();
        assert!(problem.contains(expected), "{expected}: {problem}");
    };
    check(&|mail| mail.to.clear(), "no recipient");
    check(&|mail| mail.text = None, "neither text nor HTML");
    check(&|mail| mail.text = Some("a\0".to_owned()), "NUL");
    check(&|mail| mail.to = vec![address_of("a@example.com", None); 101], "101 recipients, and may have 100");
    check(&|mail| mail.subject = "x".repeat(1001), "1001 bytes, and may have 1000");
    check(&|mail| mail.text = Some("x".repeat((10 << 20) + 1)), "and may have 10 MiB");
    check(&|mail| mail.attachments = vec![attachment("a", "text/plain"); 33], "33 attachments");
    check(&|mail| mail.attachments = vec![attachment("../a", "text/plain")], "none that a file can have");
    check(&|mail| mail.attachments = vec![attachment("", "text/plain")], "none that a file can have");
    check(&|mail| mail.attachments = vec![attachment("a", "multipart/mixed")], "expected one such as");
    check(&|mail| mail.attachments = vec![attachment("a", "nonsense")], "expected one such as");
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for name in ["From", "Bcc", "DKIM-Signature", "Content-Type", "X-", "List-", "X-A:b", "X-A b", "X-ü", "Message-ID"]
    {
        check(&|mail| mail.headers = vec![header(name, "b")], "is not a plugin's to set");
    }
    check(&|mail| mail.headers = vec![header("X-A", "b"), header("x-a", "c")], "there twice");
    check(&|mail| mail.headers = vec![header("X-A", &"b".repeat(901))], "901 bytes, and may have 900");
    check(&|mail| mail.headers = vec![header("X-A", "b"); 33], "33 headers");
    for email in
        ["bob", "bob@", "@example.com", "böb@example.com", "bob@[127.0.0.1]", "bob@127.0.0.1", "\"b b\"@example.com"]
    {
        check(&|mail| mail.to = vec![address_of(email, None)], "is no mail address");
    }
}

#[test]
fn who_gets_a_hidden_copy_alone_is_not_told() {
    let mail = mail::Message { to: Vec::new(), bcc: vec![address_of("bob@example.com", None)], ..message() };
    let built = composed(mail).unwrap();
    let text = wire(&built.bytes);
    assert!(text.contains("\r\nTo: undisclosed-recipients:;\r\n") && !text.contains("bob"), "{text}");
    assert_eq!(built.recipients.len(), 1);
}

#[test]
fn a_text_alone_is_a_mail_of_one_part() {
    let built = composed(message()).unwrap();
    let text = wire(&built.bytes);
    assert!(text.contains("Content-Type: text/plain; charset=utf-8\r\n"), "{text}");
    let html = composed(mail::Message { text: None, html: Some("<p>".to_owned()), ..message() }).unwrap();
    assert!(wire(&html.bytes).contains("Content-Type: text/html; charset=utf-8\r\n"));
}
