//! Why a mail was not accepted, and who can change that.

use std::fmt::{self, Display};

/// Maximum characters of a relay's reply that are shown.
const REPLY_CHARACTERS_MAX: usize = 300;

/// The step of handing over a mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum SmtpStep {
    /// All connections are in use.
    #[default]
    Wait,
    Connect,
    StartTls,
    Authenticate,
    Sender,
    Recipient(String),
    Content,
}

impl Display for SmtpStep {
    /// Writes a clause that follows "while".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait => f.write_str("other mails had all connections to it"),
            Self::Connect => f.write_str("the host connected to it"),
            Self::StartTls => f.write_str("the connection became a TLS one (STARTTLS)"),
            Self::Authenticate => f.write_str("the host logged in (AUTH)"),
            Self::Sender => f.write_str("it was told the sender (MAIL FROM)"),
            Self::Recipient(address) => write!(f, "it was told the recipient {address} (RCPT TO)"),
            Self::Content => f.write_str("it was given the mail (DATA)"),
        }
    }
}

/// Why a mail was not accepted; each variant has one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailFailure {
    /// The operator must change something; until then no mail is accepted.
    Misconfigured(String),
    /// It may work later.
    Later(String),
    /// The relay will never accept this mail.
    Refused(String),
}

impl MailFailure {
    /// Returns a short, stable code for labels.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Misconfigured(_) => "misconfigured",
            Self::Later(_) => "unavailable",
            Self::Refused(_) => "refused",
        }
    }
}

/// Removes secrets from a relay's reply.
pub type Hide<'a> = &'a (dyn Fn(String) -> String + Send + Sync);

/// A negative reply of the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SmtpReply {
    pub(super) code: u16,
    text: String,
}

impl SmtpReply {
    /// Creates a reply. `hide` removes secrets from the text before it is truncated.
    pub(super) fn new(code: u16, text: &str, hide: Hide<'_>) -> Self {
        let hidden = hide(text.to_owned());
        let plain: String =
            hidden.chars().take(REPLY_CHARACTERS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { code, text: plain.trim().to_owned() }
    }

    /// Returns whether the relay closes the connection with this reply.
    pub(super) fn is_farewell(&self) -> bool {
        self.code == 421
    }
}

impl Display for SmtpReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// Classifies a reply at this step. For recipients see [`of_recipients`].
pub(super) fn of_reply(relay: &str, step: &SmtpStep, reply: &SmtpReply) -> MailFailure {
    let is_permanent = reply.code >= 500;
    match (step, reply.code) {
        // The relay wants a login, or a better one. It may say so at any step.
        (_, 530 | 534 | 535 | 538) => MailFailure::Misconfigured(format!(
            "the mail relay {relay} does not accept the host's login ({reply}): check username and [mail.password] in the \
             host's file"
        )),
        (SmtpStep::Authenticate, _) if is_permanent => MailFailure::Misconfigured(format!(
            "the mail relay {relay} does not let the host log in ({reply}): check [mail] in the host's file"
        )),
        // The relay knows nothing of the mail yet, except perhaps its size.
        (SmtpStep::Sender, code) if is_permanent && code != 552 => MailFailure::Misconfigured(format!(
            "the mail relay {relay} refuses the host's sender ({reply}): check from, below [mail] in the host's file"
        )),
        (SmtpStep::Sender | SmtpStep::Recipient(_) | SmtpStep::Content, _) if is_permanent => {
            MailFailure::Refused(format!("the mail relay {relay} refused the mail: {reply}"))
        }
        _ => MailFailure::Later(format!("the mail relay {relay} answered {reply} while {step}")),
    }
}

/// Classifies the refusal of these recipients. The other recipients get nothing, either.
pub(super) fn of_recipients(relay: &str, all: usize, replies: &[(String, SmtpReply)]) -> MailFailure {
    // These codes are about the login, not the recipient.
    let about_login = replies.iter().find(|(_, reply)| matches!(reply.code, 530 | 534 | 535 | 538));
    if let Some((recipient, reply)) = about_login {
        return of_reply(relay, &SmtpStep::Recipient(recipient.clone()), reply);
    }
    let told: Vec<_> = replies.iter().map(|(recipient, reply)| format!("{recipient} ({reply})")).collect();
    let others = if replies.len() < all { "; the others were not sent it, either" } else { "" };
    let told = told.join(", ");
    if replies.iter().any(|(_, reply)| reply.code >= 500) {
        return MailFailure::Refused(format!("the mail relay {relay} refused the recipient {told}{others}"));
    }
    MailFailure::Later(format!("the mail relay {relay} does not take mail for {told} now{others}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_means_what_its_code_and_its_step_say() {
        let bob = || SmtpStep::Recipient("bob@example.com".to_owned());
        for (step, code, expected) in [
            (SmtpStep::Connect, 421, "later"),
            (SmtpStep::Connect, 554, "later"),
            (SmtpStep::StartTls, 454, "later"),
            (SmtpStep::Authenticate, 454, "later"),
            (SmtpStep::Authenticate, 535, "misconfigured"),
            (SmtpStep::Authenticate, 504, "misconfigured"),
            (SmtpStep::Sender, 451, "later"),
            (SmtpStep::Sender, 530, "misconfigured"),
            (SmtpStep::Sender, 550, "misconfigured"),
            (SmtpStep::Sender, 552, "refused"),
            (bob(), 530, "misconfigured"),
            (SmtpStep::Content, 421, "later"),
            (SmtpStep::Content, 452, "later"),
            (SmtpStep::Content, 530, "misconfigured"),
            (SmtpStep::Content, 552, "refused"),
            (SmtpStep::Content, 554, "refused"),
        ] {
            let failure =
                of_reply("mail.example.com:587", &step, &SmtpReply::new(code, "5.0.0 so it is", &|text| text));
            let (kind, text) = match &failure {
                MailFailure::Later(text) => ("later", text),
                MailFailure::Misconfigured(text) => ("misconfigured", text),
                MailFailure::Refused(text) => ("refused", text),
            };
            assert_eq!(kind, expected, "{step:?} {code}");
            assert!(
                text.contains(&format!("{code} 5.0.0 so it is")) && text.contains("mail.example.com:587"),
                "{text}"
            );
        }
    }

    #[test]
    fn who_was_refused_is_named_and_a_definite_no_outweighs_a_not_yet() {
        let replies = |codes: &[(&str, u16)]| -> Vec<_> {
            codes
                .iter()
                .map(|(name, code)| (format!("{name}@example.com"), SmtpReply::new(*code, "no", &|text| text)))
                .collect()
        };
        let relay = "mail.example.com:25";
        assert_eq!(
            of_recipients(relay, 3, &replies(&[("bob", 550), ("eve", 450)])),
            MailFailure::Refused(
                "the mail relay mail.example.com:25 refused the recipient bob@example.com (550 no), eve@example.com (450 \
                 no); the others were not sent it, either"
                    .to_owned()
            )
        );
        assert_eq!(
            of_recipients(relay, 1, &replies(&[("bob", 450)])),
            MailFailure::Later(
                "the mail relay mail.example.com:25 does not take mail for bob@example.com (450 no) now".to_owned()
            )
        );
        let login = of_recipients(relay, 1, &replies(&[("bob", 530)]));
        assert!(matches!(login, MailFailure::Misconfigured(_)), "{login:?}");
    }

    #[test]
    fn what_a_relay_says_is_cut_and_commands_no_terminal() {
        let reply = SmtpReply::new(550, &format!("\x1b[2J\r\n{}", "x".repeat(10_000)), &|text| text);
        assert!(reply.to_string().len() < 320 && !reply.to_string().contains(char::is_control), "{reply}");
        // Truncation must not leave half of a secret.
        for before in 290..300 {
            let text = format!("{}a password", "x".repeat(before));
            let reply = SmtpReply::new(550, &text, &|text| text.replace("a password", "[secret p]")).to_string();
            assert!(!reply.contains("a p"), "{reply}");
        }
    }
}
