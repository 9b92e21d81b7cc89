//! The URL of an event. Event data in it is percent-encoded and cannot leave the position that the operator gave it.
//! The host only sends to the granted origins.

use std::borrow::Cow;

use notify_plugin::template::{Escape, Templates};
use notify_plugin::{Delivery, Event, Failure, reject};

pub(crate) fn url(setting: &str, event: &Event, delivery: &Delivery) -> Result<String, Failure> {
    if !is_template(setting) {
        return Ok(setting.to_owned());
    }
    let mut templates = Templates::new(event, delivery);
    templates.fail_on_undefined();
    let url = templates.render_for(Escape::Url, "url", setting)?;
    // Receivers resolve `..` to the parent folder, even if the dots are encoded.
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let is_up = |segment: &str| matches!(&*unescaped(segment), "." | "..");
    if path.split(['/', '\\']).any(is_up) {
        return Err(reject("bad-url", "[config] url: what the event fills in leads to another folder"));
    }
    Ok(url)
}

/// Returns whether the URL contains event data.
pub(crate) fn is_template(setting: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|begin| setting.contains(begin))
}

/// Decodes percent-encoded dots.
fn unescaped(segment: &str) -> Cow<'_, str> {
    if segment.contains('%') {
        Cow::Owned(segment.replace("%2e", ".").replace("%2E", "."))
    } else {
        Cow::Borrowed(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{delivery, event};

    fn check(setting: &str, data: &str, expected: Result<&str, &str>) {
        let url = url(setting, &Event { data: data.to_owned(), ..event() }, &delivery());
        let url = match &url {
            Ok(url) => Ok(&**url),
            Err(Failure::Reject(rejection)) => Err(&*rejection.code),
            Err(_) => Err("other"),
        };
        assert_eq!(url, expected, "{setting} {data}");
    }

    #[test]
    fn a_url_without_a_template_is_as_it_is() {
        check("https://a.example/../%7Bx%7D?a=b c", "{}", Ok("https://a.example/../%7Bx%7D?a=b c"));
    }

    #[test]
    fn what_the_event_fills_in_stays_where_it_is_put() {
        let setting = "https://a.example/orders/{{ data.id }}/created?by={{ data.by }}";
        let filled = |id: &str, by: &str| serde_json::json!({ "id": id, "by": by }).to_string();
        check(setting, &filled("47 11", "ä"), Ok("https://a.example/orders/47%2011/created?by=%C3%A4"));
        check(
            setting,
            &filled("../../x", "1&admin=1#"),
            Ok("https://a.example/orders/..%2F..%2Fx/created?by=1%26admin%3D1%23"),
        );
        for id in ["..", "."] {
            check(setting, &filled(id, ""), Err("bad-url"));
        }
        check("https://a.example/{{ data.id|safe }}/x", &filled("a/%2E%2e", ""), Err("bad-url"));
        check("https://a.example/x?{{ data.id }}", &filled("..", ""), Ok("https://a.example/x?.."));
        check(setting, "{}", Err("template"));
        check("https://a.example/{{ data.id", "{}", Err("other"));
    }
}
