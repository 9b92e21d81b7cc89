//! A plan is a request before it is signed, made without calling the host.

use notify_plugin::template::{Escape, Templates};
use notify_plugin::{Delivery, Event, Failure};

use crate::settings::{Body, HeaderValue, Settings};
use crate::{binary, headers, structured, target};

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) url: String,
    pub(crate) content_type: String,
    /// Headers, except those with a secret.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Plan {
    pub(crate) fn new(settings: &Settings, event: &Event, delivery: &Delivery) -> Result<Self, Failure> {
        headers::check(settings)?;
        let url = target::url(&settings.url, event, delivery)?;
        let mut headers = headers::of_delivery(event, delivery);
        let (content_type, body) = match settings.body()? {
            Body::Structured => ("application/cloudevents+json".to_owned(), structured::body(event)),
            Body::Binary => {
                headers.extend(binary::headers(event));
                ("application/json".to_owned(), event.data.clone())
            }
            Body::Template { template, content_type } => {
                let escape = Escape::for_content_type(content_type);
                let body = Templates::new(event, delivery).render_for(escape, "template", template)?;
                (content_type.to_owned(), body)
            }
        };
        for (name, value) in &settings.headers {
            if let HeaderValue::Text(text) = value {
                headers.push((name.clone(), text.clone()));
            }
        }
        Ok(Self { url, content_type, headers, body: body.into_bytes() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;
    use crate::tests::{delivery, event};

    fn plan(json: &str) -> Plan {
        match Plan::new(&settings(json), &event(), &delivery()) {
            Ok(plan) => plan,
            Err(failure) => panic!("{json}: {failure:?}"),
        }
    }

    #[test]
    fn a_cloud_event_is_sent_unless_something_else_is_said() {
        let plan = plan(r#"{"url": "https://a.example/", "headers": {"x-team": "orders", "a": {"secret": "b"}}}"#);
        assert_eq!((&*plan.url, &*plan.content_type), ("https://a.example/", "application/cloudevents+json"));
        assert!(plan.headers.contains(&("x-team".to_owned(), "orders".to_owned())));
        assert!(plan.headers.iter().all(|(name, _)| name != "a"), "a secret is the host's to fill in");
    }

    #[test]
    fn in_binary_mode_the_body_is_the_data_as_it_came() {
        let plan = plan(r#"{"url": "https://a.example/", "format": "binary"}"#);
        assert_eq!(plan.body, event().data.as_bytes());
        assert!(plan.headers.contains(&("ce-id".to_owned(), "e-1".to_owned())));
    }

    #[test]
    fn a_template_makes_the_body_for_its_content_type() {
        let plan = |content_type: &str| {
            let template = r#"{\"text\": \"{{ type }}: {{ data.product }} & {{ '\\\"' }}\"}"#;
            plan(&format!(
                r#"{{"url": "https://a.example/", "content-type": "{content_type}", "template": "{template}"}}"#
            ))
        };
        let json = plan("application/json");
        assert_eq!(String::from_utf8_lossy(&json.body), r#"{"text": "OrderCreated: iPhone 15 & \""}"#);
        assert_eq!(String::from_utf8_lossy(&plan("text/plain").body), r#"{"text": "OrderCreated: iPhone 15 & ""}"#);
        assert_eq!(plan("text/plain").content_type, "text/plain");
    }
}
