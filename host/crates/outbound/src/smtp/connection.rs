//! A connection to the relay, over which one mail after the other is handed over.

use config::{RelayAddress, Security};
use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;

use crate::smtp::Progress;
use crate::smtp::failure::{Hide, MailFailure, Reply, Step, of_recipients, of_reply};

/// How a mail's way ended that did not end well.
pub(super) enum Ending {
    /// The relay answered, and waits for the next mail.
    Answered(MailFailure),
    /// The connection is of no more use.
    Lost(MailFailure),
    /// It was of no use from the start: the relay closed it while it was not used. Nothing was handed over.
    Stale,
}

/// Where to, and how.
pub(super) struct Way<'a> {
    pub(super) relay: &'a RelayAddress,
    /// Of [`Security::Tls`] and [`Security::StartTls`].
    pub(super) tls: Option<&'a TlsParameters>,
    pub(super) hello: &'a ClientId,
    pub(super) credentials: Option<Credentials>,
    pub(super) hide: Hide<'a>,
}

/// Dropping it in the middle of anything closes it, so that the relay discards what it has of a mail.
pub(super) struct Connection {
    smtp: AsyncSmtpConnection,
    relay: String,
    was_used: bool,
}

impl Connection {
    pub(super) async fn open(way: Way<'_>, progress: &Progress) -> Result<Self, MailFailure> {
        let name = way.relay.to_string();
        let tls = way.tls.cloned();
        let (wrapper, upgrade) = match way.relay.security {
            Security::Tls => (tls, None),
            Security::StartTls => (None, tls),
            Security::Nothing => (None, None),
        };
        progress.is_at(Step::Connect);
        let server = (way.relay.host.as_str(), way.relay.port);
        // Its own time limits would be for each address; there is one around all of it.
        let opened = AsyncSmtpConnection::connect_tokio1(server, None, way.hello, wrapper, None).await;
        let mut smtp = opened.map_err(|error| of_error(&name, &Step::Connect, &error, way.hide))?;
        if let Some(tls) = upgrade {
            progress.is_at(Step::StartTls);
            if !smtp.can_starttls() {
                return Err(MailFailure::Later(format!(
                    "the mail relay {name} does not offer STARTTLS, and nothing is sent unencrypted: use smtps:// if it has TLS \
                     from the start, or, where the way to it is safe, tls = \"none\" below [mail] in the host's file"
                )));
            }
            smtp.starttls(tls, way.hello).await.map_err(|error| of_error(&name, &Step::StartTls, &error, way.hide))?;
        }
        if let Some(credentials) = way.credentials {
            progress.is_at(Step::Authenticate);
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            if smtp.server_info().get_auth_mechanism(&mechanisms).is_none() {
                return Err(MailFailure::Misconfigured(format!(
                    "the mail relay {name} offers no login by PLAIN or LOGIN: leave out username and [mail.password] in the host's \
                     file, or use the port where it does"
                )));
            }
            let login = smtp.auth(&mechanisms, &credentials).await;
            login.map_err(|error| of_error(&name, &Step::Authenticate, &error, way.hide))?;
        }
        Ok(Self { smtp, relay: name, was_used: false })
    }

    /// Hands one mail over, to all recipients or to none.
    pub(super) async fn send(
        &mut self,
        sender: &Address,
        recipients: &[Address],
        message: &[u8],
        progress: &Progress,
        hide: Hide<'_>,
    ) -> Result<(), Ending> {
        progress.is_at(Step::Sender);
        if let Err(error) = self.smtp.command(Mail::new(Some(sender.clone()), Vec::new())).await {
            let is_gone = reply(&error, hide).is_none_or(|reply| reply.is_farewell());
            return Err(if self.was_used && is_gone {
                Ending::Stale
            } else {
                self.ending(&Step::Sender, &error, hide).await
            });
        }
        let mut refused = Vec::new();
        for recipient in recipients {
            let step = Step::Recipient(recipient.to_string());
            progress.is_at(step.clone());
            if let Err(error) = self.smtp.command(Rcpt::new(recipient.clone(), Vec::new())).await {
                match reply(&error, hide) {
                    Some(reply) if !reply.is_farewell() => refused.push((recipient.to_string(), reply)),
                    _ => return Err(self.ending(&step, &error, hide).await),
                }
            }
        }
        if !refused.is_empty() {
            let failure = of_recipients(&self.relay, recipients.len(), &refused);
            return Err(self.answered(failure).await);
        }
        progress.is_at(Step::Content);
        let handed_over = match self.smtp.command(Data).await {
            // The end of its last line is also the beginning of what ends it.
            Ok(_) => self.smtp.message(message.strip_suffix(b"\r\n").unwrap_or(message)).await,
            Err(error) => Err(error),
        };
        match handed_over {
            Ok(_) => {
                self.was_used = true;
                Ok(())
            }
            Err(error) => Err(self.ending(&Step::Content, &error, hide).await),
        }
    }

    async fn ending(&mut self, step: &Step, error: &Error, hide: Hide<'_>) -> Ending {
        let failure = of_error(&self.relay, step, error, hide);
        match reply(error, hide) {
            Some(reply) if !reply.is_farewell() => self.answered(failure).await,
            _ => Ending::Lost(failure),
        }
    }

    /// Makes it ready for the next mail.
    async fn answered(&mut self, failure: MailFailure) -> Ending {
        self.was_used = true;
        match self.smtp.command(Rset).await {
            Ok(_) => Ending::Answered(failure),
            Err(_) => Ending::Lost(failure),
        }
    }
}

/// The relay's words, if the error is of its words.
fn reply(error: &Error, hide: Hide<'_>) -> Option<Reply> {
    let code = u16::from(error.status()?);
    let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    Some(Reply::new(code, &text, hide))
}

fn of_error(relay: &str, step: &Step, error: &Error, hide: Hide<'_>) -> MailFailure {
    if let Some(reply) = reply(error, hide) {
        return of_reply(relay, step, &reply);
    }
    // The innermost says what happened; what is around it repeats it.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = hide(cause.to_string());
    MailFailure::Later(format!("the connection to the mail relay {relay} failed while {step}: {cause}"))
}
