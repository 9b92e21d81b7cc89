//! A target is where a request goes: a URL in its one spelling, and what is read off it for each request. Whether a
//! plugin may go there is not in it: that is judged anew each time.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use config::Origin;
use http::{HeaderValue, Uri};
use url::{Position, Url};

use crate::egress::failure::EgressError;
use crate::egress::request::parse_url;

/// URLs of one plugin that are kept parsed, and bytes of one.
const KNOWN_MAX: usize = 32;
const KNOWN_BYTES_MAX: usize = 1 << 10;

/// Its copies are one.
#[derive(Clone, Debug)]
pub struct Target(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    url: Url,
    origin: Arc<Origin>,
    path: Uri,
    host: HeaderValue,
}

impl Target {
    /// `url` is one that [`parse_url`] made.
    pub fn new(url: Url) -> Result<Self, EgressError> {
        let invalid = |problem: &str| EgressError::Invalid(problem.to_owned());
        let origin = Origin::of_url(&url).ok_or_else(|| invalid("only http and https go through the gate"))?;
        // There may be a secret in it, so that it is not shown.
        let path = &url[Position::BeforePath..Position::AfterQuery];
        let path = path.parse().map_err(|_| invalid("the URL's path is no path"))?;
        let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]);
        let host = host.map_err(|_| invalid("the URL's host is no host"))?;
        Ok(Self(Arc::new(Parts { url, origin: Arc::new(origin), path, host })))
    }

    pub(super) fn origin(&self) -> &Arc<Origin> {
        &self.0.origin
    }

    /// Path and query.
    pub(super) fn path(&self) -> Uri {
        self.0.path.clone()
    }

    /// As the header has it.
    pub(super) fn host(&self) -> HeaderValue {
        self.0.host.clone()
    }
}

impl Deref for Target {
    type Target = Url;

    fn deref(&self) -> &Url {
        &self.0.url
    }
}

/// The targets that one plugin asks for again and again, by the text that it asks with. None has a secret in it.
#[derive(Debug, Default)]
pub(super) struct Targets(Mutex<HashMap<Box<str>, Target>>);

impl Targets {
    pub(super) fn parse(&self, text: &str) -> Result<Target, EgressError> {
        let known = |targets: &Self| targets.0.lock().unwrap_or_else(PoisonError::into_inner).get(text).cloned();
        if let Some(target) = known(self) {
            return Ok(target);
        }
        let target = Target::new(parse_url(text)?)?;
        if text.len() <= KNOWN_BYTES_MAX {
            let mut targets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if targets.len() >= KNOWN_MAX {
                // Whoever has a URL for each event gains nothing here, and loses little.
                targets.clear();
            }
            targets.insert(text.into(), target.clone());
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_text_is_the_same_target_and_few_are_known() {
        let targets = Targets::default();
        let first = targets.parse("http://A.example./b?c#d").unwrap();
        assert_eq!(first.as_str(), "http://a.example/b?c");
        assert!(Arc::ptr_eq(&first.0, &targets.parse("http://A.example./b?c#d").unwrap().0));
        assert!(targets.parse("http://user@a.example/").is_err());
        for number in 0..1000 {
            targets.parse(&format!("http://a.example/{number}")).unwrap();
            targets.parse(&format!("http://a.example/{number}/{}", "x".repeat(KNOWN_BYTES_MAX))).unwrap();
        }
        let known = targets.0.lock().unwrap();
        assert!(known.len() <= KNOWN_MAX && known.keys().all(|text| text.len() <= KNOWN_BYTES_MAX));
    }
}
