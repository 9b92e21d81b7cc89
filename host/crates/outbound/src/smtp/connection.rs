//! A connection to the SMTP relay, which carries one mail after another.

use config::{RelayAddress, Security};
use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;

use crate::smtp::SmtpProgress;
use crate::smtp::failure::{Hide, MailFailure, SmtpReply, SmtpStep, of_recipients, of_reply};

/// Why sending a mail failed, and whether the connection is still usable.
pub(super) enum SendError {
    /// The relay answered, and waits for the next mail.
    Answered(MailFailure),
    /// The connection is no longer usable.
    Lost(MailFailure),
    /// The relay had closed the connection while it was idle. Nothing was handed over.
    Stale,
}

/// How to connect to the relay.
pub(super) struct ConnectOptions<'a> {
    pub(super) relay: &'a RelayAddress,
    /// Set for [`Security::Tls`] and [`Security::StartTls`].
    pub(super) tls: Option<&'a TlsParameters>,
    pub(super) hello: &'a ClientId,
    pub(super) credentials: Option<Credentials>,
    pub(super) hide: Hide<'a>,
}

/// Dropping the connection in the middle of a mail closes it, so that the relay discards what it has received.
pub(super) struct Connection {
    smtp: AsyncSmtpConnection,
    relay: String,
    was_used: bool,
}

impl Connection {
    pub(super) async fn open(options: ConnectOptions<'_>, progress: &SmtpProgress) -> Result<Self, MailFailure> {
        let name = options.relay.to_string();
        let tls = options.tls.cloned();
        let (wrapper, upgrade) = match options.relay.security {
            Security::Tls => (tls, None),
            Security::StartTls => (None, tls),
            Security::Nothing => (None, None),
        };
        progress.is_at(SmtpStep::Connect);
        let server = (options.relay.host.as_str(), options.relay.port);
        // lettre's own time limits apply to each address. The caller limits the whole.
        let opened = AsyncSmtpConnection::connect_tokio1(server, None, options.hello, wrapper, None).await;
        let mut smtp = opened.map_err(|error| of_error(&name, &SmtpStep::Connect, &error, options.hide))?;
        if let Some(tls) = upgrade {
            progress.is_at(SmtpStep::StartTls);
            if !smtp.can_starttls() {
                return Err(MailFailure::Later(format!(
                    "the mail relay {name} does not offer STARTTLS, and nothing is sent unencrypted: use smtps:// if it has TLS \
                     from the start, or, where the way to it is safe, tls = \"none\" below [mail] in the host's file"
                )));
            }
            smtp.starttls(tls, options.hello)
                .await
                .map_err(|error| of_error(&name, &SmtpStep::StartTls, &error, options.hide))?;
        }
        if let Some(credentials) = options.credentials {
            progress.is_at(SmtpStep::Authenticate);
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            if smtp.server_info().get_auth_mechanism(&mechanisms).is_none() {
                return Err(MailFailure::Misconfigured(format!(
                    "the mail relay {name} offers no login by PLAIN or LOGIN: leave out username and [mail.password] in the host's \
                     file, or use the port where it does"
                )));
            }
            let login = smtp.auth(&mechanisms, &credentials).await;
            login.map_err(|error| of_error(&name, &SmtpStep::Authenticate, &error, options.hide))?;
        }
        Ok(Self { smtp, relay: name, was_used: false })
    }

    /// Hands one mail over, to all recipients or to none.
    pub(super) async fn send(
        &mut self,
        sender: &Address,
        recipients: &[Address],
        message: &[u8],
        progress: &SmtpProgress,
        hide: Hide<'_>,
    ) -> Result<(), SendError> {
        progress.is_at(SmtpStep::Sender);
        if let Err(error) = self.smtp.command(Mail::new(Some(sender.clone()), Vec::new())).await {
            let is_gone = reply(&error, hide).is_none_or(|reply| reply.is_farewell());
            return Err(if self.was_used && is_gone {
                SendError::Stale
            } else {
                self.send_error(&SmtpStep::Sender, &error, hide).await
            });
        }
        let mut refused = Vec::new();
        for recipient in recipients {
            let step = SmtpStep::Recipient(recipient.to_string());
            progress.is_at(step.clone());
            if let Err(error) = self.smtp.command(Rcpt::new(recipient.clone(), Vec::new())).await {
                match reply(&error, hide) {
                    Some(reply) if !reply.is_farewell() => refused.push((recipient.to_string(), reply)),
                    _ => return Err(self.send_error(&step, &error, hide).await),
                }
            }
        }
        if !refused.is_empty() {
            let failure = of_recipients(&self.relay, recipients.len(), &refused);
            return Err(self.answered(failure).await);
        }
        progress.is_at(SmtpStep::Content);
        let handed_over = match self.smtp.command(Data).await {
            // The end marker begins with the line end of the mail's last line.
            Ok(_) => self.smtp.message(message.strip_suffix(b"\r\n").unwrap_or(message)).await,
            Err(error) => Err(error),
        };
        match handed_over {
            Ok(_) => {
                self.was_used = true;
                Ok(())
            }
            Err(error) => Err(self.send_error(&SmtpStep::Content, &error, hide).await),
        }
    }

    async fn send_error(&mut self, step: &SmtpStep, error: &Error, hide: Hide<'_>) -> SendError {
        let failure = of_error(&self.relay, step, error, hide);
        match reply(error, hide) {
            Some(reply) if !reply.is_farewell() => self.answered(failure).await,
            _ => SendError::Lost(failure),
        }
    }

    /// Resets the session for the next mail.
    async fn answered(&mut self, failure: MailFailure) -> SendError {
        self.was_used = true;
        match self.smtp.command(Rset).await {
            Ok(_) => SendError::Answered(failure),
            Err(_) => SendError::Lost(failure),
        }
    }
}

/// Returns the relay's reply, if the error is one.
fn reply(error: &Error, hide: Hide<'_>) -> Option<SmtpReply> {
    let code = u16::from(error.status()?);
    let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    Some(SmtpReply::new(code, &text, hide))
}

fn of_error(relay: &str, step: &SmtpStep, error: &Error, hide: Hide<'_>) -> MailFailure {
    if let Some(reply) = reply(error, hide) {
        return of_reply(relay, step, &reply);
    }
    // The innermost error says what happened; the outer ones repeat it.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = hide(cause.to_string());
    MailFailure::Later(format!("the connection to the mail relay {relay} failed while {step}: {cause}"))
}
