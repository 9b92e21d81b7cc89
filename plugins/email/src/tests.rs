use notify_plugin::testing::{delivery, event};

use super::*;
use crate::settings::OneOrMore;

pub(crate) fn templates(event: &Event) -> Templates {
    Templates::new(event, &delivery())
}

const ORDER: &str = r#"{"event":"OrderCreated","order_id":"4711","user_id":"user123","product":"<b>iPhone</b> & 15",
    "quantity":2,"price":949.00,"currency":"EUR","email":"ann@example.com"}"#;

fn rendered(settings: &Settings, event: &Event) -> Result<Rendered, Failure> {
    texts(settings, event, &mut templates(event))
}

#[test]
fn every_event_of_an_order_has_a_mail_of_its_own() {
    let mut subjects = std::collections::BTreeSet::new();
    for what in ["Created", "Paid", "Shipped", "Delivered", "Canceled", "Refunded"] {
        let mail = rendered(&Settings::default(), &event(&format!("Order{what}"), ORDER)).ok().unwrap();
        assert!(mail.subject.ends_with(" (4711)"), "{}", mail.subject);
        subjects.insert(mail.subject);
        let (text, html) = (mail.text.unwrap(), mail.html.unwrap());
        for (name, value) in [("Order", "4711"), ("Product", "<b>iPhone</b> & 15"), ("Price", "949.00 EUR")] {
            assert!(text.contains(&format!("{name}: {value}\n")), "{text}");
        }
        assert!(html.contains("&lt;b&gt;iPhone&lt;&#x2f;b&gt; &amp; 15") && !html.contains("<b>"), "{html}");
        assert!(!text.contains("user123") && !html.contains("user123"), "what is no customer's business is not told");
    }
    assert_eq!(subjects.len(), 6);
}

#[test]
fn a_subject_is_one_line_and_not_endless() {
    for (count, expected) in [(199, 199), (200, 200), (201, 200), (5000, 200)] {
        assert_eq!(shortened(&"ü".repeat(count)).chars().count(), expected, "{count}");
    }
    assert!(shortened(&"ü".repeat(201)).ends_with("ü…"));
    assert_eq!(one_line(" a\r\n b\tc\u{0} "), "a b c");
}

#[test]
fn of_an_event_that_is_not_known_the_mail_shows_what_is_in_it() {
    let data = r#"{"name":"disk","used":0.97,"tags":["a"],"host":null,"evil":"<script>"}"#;
    let mail = rendered(&Settings::default(), &event("DiskFull", data)).ok().unwrap();
    assert_eq!(mail.subject, "DiskFull (4711)");
    let text = mail.text.unwrap();
    for line in ["Type: DiskFull\n", "Subject: 4711\n", "name: disk\n", "used: 0.97\n"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("tags") && !mail.html.unwrap().contains("<script>"));
    for data in ["[1]", "\"x\"", "null", "{}"] {
        assert!(rendered(&Settings::default(), &event("OrderCreated", data)).is_ok(), "{data}");
        assert!(rendered(&Settings::default(), &event("Other", data)).is_ok(), "{data}");
    }
}

#[test]
fn a_text_is_that_of_the_event_before_that_of_all_events_before_the_built_in() {
    let settings: Settings = serde_json::from_str(
        r#"{"subject": "all", "text": "all", "events": {"OrderPaid": {"subject": "paid\n{{ data.product }}", "html": "<i>{{ data.product }}</i>"}}}"#,
    )
    .unwrap();
    let paid = rendered(&settings, &event("OrderPaid", ORDER)).ok().unwrap();
    assert_eq!(paid.subject, "paid <b>iPhone</b> & 15", "one line");
    assert_eq!(
        (paid.text.as_deref(), paid.html.as_deref()),
        (Some("all"), Some("<i>&lt;b&gt;iPhone&lt;&#x2f;b&gt; &amp; 15</i>"))
    );
    let shipped = rendered(&settings, &event("OrderShipped", ORDER)).ok().unwrap();
    assert_eq!(shipped.subject, "all");
    assert_eq!((shipped.text.as_deref(), shipped.html), (Some("all"), None), "no HTML that says something else");
}

#[test]
fn a_link_is_one_that_can_be_followed_without_harm() {
    for (link, data, expected) in [
        (
            "https://shop.example/o/{{ data.order_id }}",
            r#"{"order_id": "a/b?c"}"#,
            Some("https://shop.example/o/a%2Fb%3Fc"),
        ),
        ("{{ data.url|safe }}", r#"{"url": "javascript:alert(1)"}"#, None),
        ("", "{}", None),
    ] {
        let settings = Settings { link: Some(link.to_owned()), shop: "Shop & Co".to_owned(), ..Settings::default() };
        let mail = rendered(&settings, &event("OrderPaid", data)).ok().unwrap();
        let (text, html) = (mail.text.unwrap(), mail.html.unwrap());
        assert_eq!(html.contains("<a "), expected.is_some(), "{html}");
        assert!(html.contains("Shop &amp; Co") && !html.contains("javascript"), "{html}");
        assert!(expected.is_none_or(|link| text.contains(link)), "{text}");
    }
}

#[test]
fn a_fault_in_a_template_names_its_key_and_line() {
    let settings = |json: &str| serde_json::from_str::<Settings>(json).unwrap();
    for (json, expected) in [
        (r#"{"subject": "{{ data.product"}"#, "[config] subject, line 1: "),
        (r#"{"html": "<p>\n{{ data.product|shout }}"}"#, "[config] html, line 2: "),
        (r#"{"events": {"OrderPaid": {"text": "a\nb\n{% if %}"}}}"#, "[config] events.OrderPaid.text, line 3: "),
    ] {
        let Err(Failure::Misconfigured(reason)) = rendered(&settings(json), &event("OrderPaid", ORDER)) else {
            panic!("{json}")
        };
        assert!(reason.starts_with(expected), "{reason}");
    }
    // The member may exist in another event.
    let typo = settings(r#"{"text": "{{ data.prodduct }}"}"#);
    let Err(Failure::Reject(rejection)) = rendered(&typo, &event("OrderPaid", ORDER)) else { panic!() };
    assert!(rejection.reason.starts_with("[config] text, line 1: undefined value"), "{}", rejection.reason);
    let asked = settings(r#"{"text": "{% if data.prodduct %}x{% endif %}{{ data.prodduct|default('-') }}"}"#);
    assert_eq!(rendered(&asked, &event("OrderPaid", ORDER)).ok().unwrap().text.unwrap(), "-");
}

#[test]
fn the_schema_and_the_settings_say_the_same() {
    let schema: serde_json::Value = serde_json::from_str(CONFIG_SCHEMA).unwrap();
    let defaults: serde_json::Map<_, _> = schema["properties"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(key, property)| Some((key.clone(), property.get("default")?.clone())))
        .collect();
    let settings: Settings = serde_json::from_value(defaults.into()).unwrap();
    let default = Settings::default();
    assert_eq!(settings.to.iter().collect::<Vec<_>>(), default.to.iter().collect::<Vec<_>>());
    assert_eq!((settings.accent, settings.attach_event), (default.accent, default.attach_event));
    let all = r##"{"to": ["a"], "cc": "b", "bcc": [], "reply-to": "c", "subject": "", "text": "", "html": "", "events": {}, "shop": "",
        "link": "", "footer": "", "accent": "#000000", "headers": {}, "attach-event": true, "no-recipient": "skip"}"##;
    let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_str(all).unwrap();
    assert!(schema["properties"].as_object().unwrap().keys().eq(keys.keys()));
    serde_json::from_str::<Settings>(all).unwrap();
}

#[test]
fn who_is_to_change_it_depends_on_where_the_address_is_from() {
    let settings = Settings { cc: OneOrMore::One("boss@example.com".to_owned()), ..Settings::default() };
    let event = event("OrderPaid", ORDER);
    let recipients = Recipients::of(&settings, &mut templates(&event)).ok().unwrap();
    let denied = |whom: &str| {
        let reason = format!("the recipient {whom} is not granted to this plugin");
        failure(HostError::Denied(reason), &recipients)
    };
    let Failure::Reject(rejection) = denied("ann@example.com") else { panic!() };
    assert_eq!(rejection.code, "recipient-not-granted");
    assert!(matches!(denied("boss@example.com"), Failure::Misconfigured(_)));
    let no_relay = failure(HostError::Denied("this host has no mail relay".to_owned()), &recipients);
    assert!(matches!(no_relay, Failure::Misconfigured(_)));
    assert!(matches!(failure(HostError::Unavailable(String::new()), &recipients), Failure::Retry(_)));
}
