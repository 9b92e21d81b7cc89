//! The SMTP relay is the operator's mail server. All mail of the host's plugins goes there, whoever it is for.
//!
//! A mail is accepted for all of its recipients or for none. If the relay refuses one recipient, it gets no content.
//! So a retry, or a replay after a recipient was fixed, reaches nobody twice. One case stays open, as it does in SMTP
//! itself: the connection breaks after the mail was handed over and before the relay confirmed it. Such a mail is
//! sent again, with the same Message-ID.

mod connection;
mod dkim;
mod failure;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use config::{MailConfig, RelayAddress, Security};
use lettre::Address;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use rustls::pki_types::CertificateDer;
use state::file::apart;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::redact::Redactor;
use crate::secret_value::SecretValue;
use crate::smtp::connection::{ConnectOptions, Connection, SendError};
use crate::smtp::dkim::Signer;
use crate::smtp::failure::SmtpStep;
pub use crate::smtp::failure::{Hide, MailFailure};

/// Maximum idle time of a connection. Relays close idle connections too, some without a word.
const IDLE_MAX: Duration = Duration::from_mins(1);

pub struct SmtpRelay {
    config: MailConfig,
    /// Certificates of authorities that are trusted besides the system's.
    extra_roots: Vec<CertificateDer<'static>>,
    /// Built on first use, because reading the system's hundreds of certificates takes a while.
    tls: OnceCell<TlsParameters>,
    /// Read on first use, because commands that send nothing may lack permission to read the key.
    signer: OnceCell<Option<Arc<Signer>>>,
    hello: ClientId,
    permits: Semaphore,
    /// Idle connections, each with the time since when.
    parked: Mutex<Vec<(Connection, Instant)>>,
}

/// The step that a mail has reached.
#[derive(Debug, Default)]
struct SmtpProgress(Mutex<SmtpStep>);

impl SmtpProgress {
    fn is_at(&self, step: SmtpStep) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    fn step(&self) -> SmtpStep {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl SmtpRelay {
    /// Creates a relay without opening a connection.
    pub fn new(config: &MailConfig, extra_roots: Vec<CertificateDer<'static>>) -> Self {
        let hello = match &config.hello {
            None => ClientId::Domain(config.from.email.domain().to_owned()),
            Some(name) => match name.parse() {
                Ok(std::net::IpAddr::V4(address)) => ClientId::Ipv4(address),
                Ok(std::net::IpAddr::V6(address)) => ClientId::Ipv6(address),
                Err(_) => ClientId::Domain(name.clone()),
            },
        };
        Self {
            permits: Semaphore::new(config.connections_max),
            config: config.clone(),
            extra_roots,
            tls: OnceCell::new(),
            signer: OnceCell::new(),
            hello,
            parked: Mutex::default(),
        }
    }

    pub fn address(&self) -> &RelayAddress {
        &self.config.relay
    }

    /// Returns the sender of every mail.
    pub fn from(&self) -> &lettre::message::Mailbox {
        &self.config.from
    }

    /// Returns the message with its signature, if the operator configured one.
    pub async fn signed(&self, message: Vec<u8>) -> Result<Vec<u8>, MailFailure> {
        let Some(dkim) = &self.config.dkim else { return Ok(message) };
        let load = || async {
            let config = dkim.clone();
            let signer = apart(move || Signer::load(&config)).await;
            signer.map(|signer| Some(Arc::new(signer)))
        };
        let signer = self.signer.get_or_try_init(load).await.map_err(|error| {
            MailFailure::Misconfigured(format!("mail cannot be signed: cannot use {}: {error:#}", dkim.key.display()))
        })?;
        let Some(signer) = signer else { return Ok(message) };
        signer.sign(&message, jiff::Timestamp::now().as_second()).map_err(|error| {
            MailFailure::Misconfigured(format!("mail cannot be signed by {}: {error:#}", dkim.key.display()))
        })
    }

    /// Hands a message over, to all recipients or to none. `hide` removes secrets from the relay's replies.
    pub async fn send(
        &self,
        recipients: &[Address],
        message: &[u8],
        deadline: Instant,
        hide: Hide<'_>,
    ) -> Result<(), MailFailure> {
        let progress = SmtpProgress::default();
        let deadline = deadline.min(Instant::now() + self.config.timeout);
        // Dropping the future on a timeout closes its connection.
        match timeout_at(deadline, self.deliver(recipients, message, &progress, hide)).await {
            Ok(ended) => ended,
            Err(_) => Err(MailFailure::Later(format!(
                "the mail relay {} did not get done in time: the time ran out while {}",
                self.config.relay,
                progress.step()
            ))),
        }
    }

    async fn deliver(
        &self,
        recipients: &[Address],
        message: &[u8],
        progress: &SmtpProgress,
        hide: Hide<'_>,
    ) -> Result<(), MailFailure> {
        let _permit = self.permits.acquire().await;
        let sender = &self.config.from.email;
        loop {
            let mut connection = match self.parked() {
                Some(connection) => connection,
                None => self.connect(progress, hide).await?,
            };
            match connection.send(sender, recipients, message, progress, hide).await {
                Ok(()) => {
                    self.park(connection);
                    return Ok(());
                }
                Err(SendError::Answered(failure)) => {
                    self.park(connection);
                    return Err(failure);
                }
                Err(SendError::Lost(failure)) => return Err(failure),
                // A new connection is never stale, so this loop ends.
                Err(SendError::Stale) => {}
            }
        }
    }

    async fn connect(&self, progress: &SmtpProgress, hide: Hide<'_>) -> Result<Connection, MailFailure> {
        let relay = &self.config.relay;
        let tls = match relay.security {
            Security::Nothing => None,
            Security::Tls | Security::StartTls => {
                progress.is_at(SmtpStep::Connect);
                let tls = self.tls.get_or_try_init(|| self.tls_parameters()).await;
                Some(tls.map_err(|error| MailFailure::Later(format!("mail cannot be sent by TLS: {error:#}")))?)
            }
        };
        let login = self.login().await?;
        // A relay may repeat the login that it refuses.
        let password = login.iter().map(|(_, password)| ("mail.password", password));
        let redactor = Redactor::new(password);
        let hide = |text| hide(redactor.redact_text(text));
        let credentials = login.as_ref().and_then(|(username, password)| Some((username, password.text()?)));
        let credentials = credentials.map(|(name, password)| Credentials::new(name.clone(), password.to_owned()));
        let options = ConnectOptions { relay, tls, hello: &self.hello, credentials, hide: &hide };
        Connection::open(options, progress).await
    }

    /// Reads the password for each new connection, so that it can be changed while the host runs.
    async fn login(&self) -> Result<Option<(String, SecretValue)>, MailFailure> {
        let Some(login) = &self.config.login else { return Ok(None) };
        let source = login.password.clone();
        let password = apart(move || {
            let value = SecretValue::read(&source).map_err(|problem| format!("{source}: {problem}"))?;
            if value.text().is_some() { Ok(value) } else { Err(format!("{source}: it is not UTF-8")) }
        });
        let password = password.await.map_err(|problem| {
            MailFailure::Misconfigured(format!(
                "the host has no password for the mail relay {}: {problem}; see [mail.password] in the host's file",
                self.config.relay
            ))
        })?;
        Ok(Some((login.username.clone(), password)))
    }

    async fn tls_parameters(&self) -> anyhow::Result<TlsParameters> {
        let (host, roots) = (self.config.relay.host.clone(), self.extra_roots.clone());
        apart(move || {
            let mut tls = TlsParameters::builder(host);
            for root in roots {
                tls = tls.add_root_certificate(Certificate::from_der(root.to_vec())?);
            }
            tls.build_rustls()
        })
        .await
        .context("the certificates of the system cannot be used")
    }

    fn parked(&self) -> Option<Connection> {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        parked.retain(|(_, since)| since.elapsed() < IDLE_MAX);
        parked.pop().map(|(connection, _)| connection)
    }

    fn park(&self, connection: Connection) {
        // There are never more than permits, because each connection was used under one.
        self.parked.lock().unwrap_or_else(PoisonError::into_inner).push((connection, Instant::now()));
    }
}

impl std::fmt::Debug for SmtpRelay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("relay", &self.config.relay.to_string()).finish_non_exhaustive()
    }
}
