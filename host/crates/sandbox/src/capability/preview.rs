//! A preview is what a plugin sends, for who tries it out: shown, and on demand not sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::capability::secret_store::SecretStore;

/// One thing that would leave the host. No secret is in it: where one goes, its name stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    Http {
        method: String,
        url: String,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    Mail {
        /// Of the envelope.
        recipients: Vec<String>,
        /// The whole message, RFC 5322.
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

/// Collects what goes out.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Nothing is sent; each request is answered with 200 and nothing in it.
    pub is_dry: bool,
    /// `None`: nobody looks any more.
    seen: Arc<Mutex<Option<Vec<Departure>>>>,
    secret_store: Arc<SecretStore>,
}

impl Preview {
    pub fn new(is_dry: bool) -> Self {
        Self { is_dry, seen: Arc::new(Mutex::new(Some(Vec::new()))), secret_store: Arc::default() }
    }

    /// The same, for the plugin of this vault: where a value of its secrets would be seen, the secret's name stands.
    pub(super) fn hiding(self, secret_store: Arc<SecretStore>) -> Self {
        Self { secret_store, ..self }
    }

    /// Whether it must be told: it keeps what goes out, or keeps it from going out.
    pub(super) fn is_needed(&self) -> bool {
        self.is_dry || self.seen().is_some()
    }

    /// Takes note, once it is certain that the plugin is allowed to send it.
    pub fn note(&self, departure: Departure) {
        if let Some(seen) = &mut *self.seen() {
            seen.push(departure.without(&self.secret_store));
        }
    }

    /// What has been noted. From here on nothing is, so that further attempts cost what they cost in a host.
    pub fn finish(&self) -> Vec<Departure> {
        self.seen().take().unwrap_or_default()
    }

    fn seen(&self) -> MutexGuard<'_, Option<Vec<Departure>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
