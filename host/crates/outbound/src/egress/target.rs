//! A target is the destination of a request: a URL in its one spelling, and the parts of it that each request needs.
//! It carries no permission; that is checked anew for each request.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use config::Origin;
use http::{HeaderValue, Uri};
use url::{Position, Url};

use crate::egress::failure::EgressError;
use crate::egress::urls::parse_url;

/// Maximum number of parsed URLs cached per plugin.
const KNOWN_MAX: usize = 32;
/// Maximum bytes of a URL that is cached.
const KNOWN_BYTES_MAX: usize = 1 << 10;

/// A cheaply cloned target.
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
    /// Creates a target from a URL that [`parse_url`] returned.
    pub fn new(url: Url) -> Result<Self, EgressError> {
        let invalid = |problem: &str| EgressError::Invalid(problem.to_owned());
        let origin = Origin::of_url(&url).ok_or_else(|| invalid("only http and https go through the gate"))?;
        // The path may contain a secret, so the errors do not show it.
        let path = &url[Position::BeforePath..Position::AfterQuery];
        let path = path.parse().map_err(|_| invalid("the URL's path is no path"))?;
        let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]);
        let host = host.map_err(|_| invalid("the URL's host is no host"))?;
        Ok(Self(Arc::new(Parts { url, origin: Arc::new(origin), path, host })))
    }

    pub(super) fn origin(&self) -> &Arc<Origin> {
        &self.0.origin
    }

    /// Returns path and query.
    pub(super) fn path(&self) -> Uri {
        self.0.path.clone()
    }

    /// Returns the host as the `Host` header has it.
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

/// Cache of the targets that one plugin uses repeatedly, keyed by the text that the plugin gave. None contains a
/// secret.
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
                // A plugin with a new URL for each event gains nothing from the cache, and loses little by clearing
                // it.
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
