//! Why a mail was not taken, and whose it is to change that.

use std::fmt::{self, Display};

/// Of what the relay says, repeated to people.
const REPLY_CHARACTERS_MAX: usize = 300;

/// What the host is at, while it hands a mail over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Step {
    /// All connections that there may be are in use.
    #[default]
    Wait,
    Connect,
    StartTls,
    Authenticate,
    Sender,
    Recipient(String),
    Content,
}

impl Display for Step {
    /// Follows "while".
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

/// Each with one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailFailure {
    /// The operator must change something; no mail will be taken before.
    Misconfigured(String),
    /// It may work later.
    Later(String),
    /// This mail will not be taken.
    Refused(String),
}

impl MailFailure {
    /// Short and stable, for labels.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Misconfigured(_) => "misconfigured",
            Self::Later(_) => "unavailable",
            Self::Refused(_) => "refused",
        }
    }
}

/// Takes what nobody may see out of what a relay says.
pub type Hide<'a> = &'a (dyn Fn(String) -> String + Send + Sync);

/// A reply of the relay that is no yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    text: String,
}

impl Reply {
    /// `hide` takes out of the text what nobody may see, before it is cut.
    pub(super) fn new(code: u16, text: &str, hide: Hide<'_>) -> Self {
        let hidden = hide(text.to_owned());
        let plain: String =
            hidden.chars().take(REPLY_CHARACTERS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { code, text: plain.trim().to_owned() }
    }

    /// The relay closes the connection with it.
    pub(super) fn is_farewell(&self) -> bool {
        self.code == 421
    }
}

impl Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// What a reply at this step means. Of recipients see [`of_recipients`].
pub(super) fn of_reply(relay: &str, step: &Step, reply: &Reply) -> MailFailure {
    let is_permanent = reply.code >= 500;
    match (step, reply.code) {
        // Wants a login, or a better one: whichever step it says so at.
        (_, 530 | 534 | 535 | 538) => MailFailure::Misconfigured(format!(
            "the mail relay {relay} does not accept the host's login ({reply}): check username and [mail.password] in the \
             host's file"
        )),
        (Step::Authenticate, _) if is_permanent => MailFailure::Misconfigured(format!(
            "the mail relay {relay} does not let the host log in ({reply}): check [mail] in the host's file"
        )),
        // Of the mail the relay knows nothing yet, but perhaps its size.
        (Step::Sender, code) if is_permanent && code != 552 => MailFailure::Misconfigured(format!(
            "the mail relay {relay} refuses the host's sender ({reply}): check from, below [mail] in the host's file"
        )),
        (Step::Sender | Step::Recipient(_) | Step::Content, _) if is_permanent => {
            MailFailure::Refused(format!("the mail relay {relay} refused the mail: {reply}"))
        }
        _ => MailFailure::Later(format!("the mail relay {relay} answered {reply} while {step}")),
    }
}

/// What it means that the relay does not take these recipients. The others get nothing, either.
pub(super) fn of_recipients(relay: &str, all: usize, replies: &[(String, Reply)]) -> MailFailure {
    // Not about the recipient.
    let about_login = replies.iter().find(|(_, reply)| matches!(reply.code, 530 | 534 | 535 | 538));
    if let Some((recipient, reply)) = about_login {
        return of_reply(relay, &Step::Recipient(recipient.clone()), reply);
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
        let bob = || Step::Recipient("bob@example.com".to_owned());
        for (step, code, expected) in [
            (Step::Connect, 421, "later"),
            (Step::Connect, 554, "later"),
            (Step::StartTls, 454, "later"),
            (Step::Authenticate, 454, "later"),
            (Step::Authenticate, 535, "misconfigured"),
            (Step::Authenticate, 504, "misconfigured"),
            (Step::Sender, 451, "later"),
            (Step::Sender, 530, "misconfigured"),
            (Step::Sender, 550, "misconfigured"),
            (Step::Sender, 552, "refused"),
            (bob(), 530, "misconfigured"),
            (Step::Content, 421, "later"),
            (Step::Content, 452, "later"),
            (Step::Content, 530, "misconfigured"),
            (Step::Content, 552, "refused"),
            (Step::Content, 554, "refused"),
        ] {
            let failure = of_reply("mail.example.com:587", &step, &Reply::new(code, "5.0.0 so it is", &|text| text));
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
                .map(|(name, code)| (format!("{name}@example.com"), Reply::new(*code, "no", &|text| text)))
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
        let reply = Reply::new(550, &format!("\x1b[2J\r\n{}", "x".repeat(10_000)), &|text| text);
        assert!(reply.to_string().len() < 320 && !reply.to_string().contains(char::is_control), "{reply}");
        // Not half of what is to be hidden.
        for before in 290..300 {
            let text = format!("{}a password", "x".repeat(before));
            let reply = Reply::new(550, &text, &|text| text.replace("a password", "[secret p]")).to_string();
            assert!(!reply.contains("a p"), "{reply}");
        }
    }
}
