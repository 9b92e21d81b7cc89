//! A preview shows the messages that a plugin sends while it is tried out. A dry one does not send them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::capability::secret_store::SecretStore;

/// A message that would leave the host. Each secret in it is replaced by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    Http {
        method: String,
        url: String,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    Mail {
        /// The recipients of the envelope.
        recipients: Vec<String>,
        /// The whole message, in RFC 5322 format.
        message: Vec<u8>,
        html: Option<String>,
    },
}

impl Departure {
    fn without(self, secret_store: &SecretStore) -> Self {
        let text = |text| secret_store.redact(text);
        let bytes = |bytes| secret_store.redact_all(bytes);
        match self {
            Self::Http { method, url, headers, body } => Self::Http {
                method: text(method),
                url: text(url),
                headers: headers.into_iter().map(|(name, value)| (text(name), text(value))).collect(),
                body: bytes(body),
            },
            Self::Mail { recipients, message, html } => Self::Mail {
                recipients: recipients.into_iter().map(text).collect(),
                message: bytes(message),
                html: html.map(text),
            },
        }
    }
}

/// Collects outgoing messages.
#[derive(Clone, Debug)]
pub struct Preview {
    /// If set, nothing is sent; each request gets an empty response with status 200.
    pub is_dry: bool,
    /// `None` once nobody looks any more.
    seen: Arc<Mutex<Option<Vec<Departure>>>>,
    secret_store: Arc<SecretStore>,
}

impl Preview {
    pub fn new(is_dry: bool) -> Self {
        Self { is_dry, seen: Arc::new(Mutex::new(Some(Vec::new()))), secret_store: Arc::default() }
    }

    /// Replaces values from this secret store by the secrets' names.
    pub(super) fn hiding(self, secret_store: Arc<SecretStore>) -> Self {
        Self { secret_store, ..self }
    }

    /// Returns whether messages must be passed to it, because it collects them or holds them back.
    pub(super) fn is_needed(&self) -> bool {
        self.is_dry || self.seen().is_some()
    }

    /// Records a message, once the plugin is known to be allowed to send it.
    pub fn note(&self, departure: Departure) {
        if let Some(seen) = &mut *self.seen() {
            seen.push(departure.without(&self.secret_store));
        }
    }

    /// Returns the recorded messages and stops recording, so that further attempts cost the same as in a host.
    pub fn finish(&self) -> Vec<Departure> {
        self.seen().take().unwrap_or_default()
    }

    fn seen(&self) -> MutexGuard<'_, Option<Vec<Departure>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
