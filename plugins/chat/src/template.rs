//! Templates (<https://docs.rs/minijinja/latest/minijinja/syntax/>) and their view of an event.

use notify_plugin::template::Templates;
use notify_plugin::{Delivery, Event, Failure};

use crate::fit::{Escape, escaped};

/// Renders templates for one event.
pub(crate) struct Renderer<'a> {
    pub(crate) event: &'a Event,
    pub(crate) delivery: &'a Delivery,
}

impl Renderer<'_> {
    /// Renders a template. Each value is escaped, and the operator's own text stays unchanged. Missing values render
    /// as nothing, which suits texts for people.
    pub(crate) fn render(&self, key: &str, template: &str, escape: Escape) -> Result<String, Failure> {
        let mut templates = Templates::new(self.event, self.delivery);
        templates.environment().set_formatter(move |out, _state, value| {
            if value.is_undefined() || value.is_none() {
                return Ok(());
            }
            let text = value.to_string();
            Ok(out.write_str(&if value.is_safe() { text } else { escaped(&text, escape) })?)
        });
        let text = templates.render(key, template)?;
        // Keep line feeds and tabs; services accept no other control characters.
        Ok(text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect())
    }
}

#[cfg(test)]
mod tests {
    use notify_plugin::testing::{delivery, event};

    use super::*;
    use crate::fit::{as_it_is, html};

    fn check(data: &str, template: &str, escape: Escape, expected: &str) {
        let (event, delivery) = (event("OrderCreated", data), delivery());
        let rendered = Renderer { event: &event, delivery: &delivery }.render("text", template, escape);
        let rendered = match rendered {
            Ok(text) => text,
            Err(Failure::Reject(rejection)) => rejection.code,
            Err(Failure::Misconfigured(reason)) => {
                assert!(reason.starts_with("[config] text"), "{reason}");
                "misconfigured".to_owned()
            }
            Err(Failure::Retry(retry)) => retry.reason,
        };
        assert_eq!(rendered, expected, "{template}");
    }

    #[test]
    fn in_markup_what_comes_from_the_event_is_escaped() {
        let data = r#"{"name":"<b>&","none":null,"price":1.5}"#;
        check(data, "<i>{{ data.name }}</i>", html, "<i>&lt;b&gt;&amp;</i>");
        check(data, "<i>{{ data.name|safe }}</i>", html, "<i><b>&</i>");
        check(data, "{{ data.none }}{{ data.gone }}{{ data.price }} {{ type }}", html, "1.5 OrderCreated");
        check(data, "{{ data.name }}{{ data.none }}{{ data.gone }}", as_it_is, "<b>&");
        check("1e999", "{{ data }}", as_it_is, "1e999");
        check(r#"{"a":"b\u001b[31m\u0000\n\u202e"}"#, "{{ data.a }}", as_it_is, "b[31m\n\u{202e}");
    }

    #[test]
    fn a_template_that_fails_at_one_event_does_not_stop_the_others() {
        check("{}", "{{ data.a.b }}", as_it_is, "template");
        check("{}", "{{ data.a + 1 }}", as_it_is, "template");
        check("{}", "{{ data.", as_it_is, "misconfigured");
        check("{}", "{{ data|nothing }}", as_it_is, "misconfigured");
    }
}
