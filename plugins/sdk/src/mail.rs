//! Mail through the host's relay. The host adds the sender and the credentials.

use crate::HostError;
use crate::bindings::notify::plugin::mail as contract;

pub use crate::bindings::notify::plugin::mail::Address;

/// A mail under construction.
///
/// ```no_run
/// use notify_plugin::mail::Message;
///
/// # fn send() -> Result<(), notify_plugin::HostError> {
/// let id = Message::new("Order 4711").to("customer@example.com").text("Thank you!").send()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Message(contract::Message);

impl Message {
    /// Creates a mail with this subject and nothing else.
    pub fn new(subject: impl Into<String>) -> Self {
        Self(contract::Message {
            to: Vec::new(),
            cc: Vec::new(),
            bcc: Vec::new(),
            reply_to: None,
            subject: subject.into(),
            text: None,
            html: None,
            attachments: Vec::new(),
            headers: Vec::new(),
        })
    }

    /// Adds a recipient.
    pub fn to(mut self, address: impl Into<Address>) -> Self {
        self.0.to.push(address.into());
        self
    }

    /// Adds a recipient of a visible copy.
    pub fn cc(mut self, address: impl Into<Address>) -> Self {
        self.0.cc.push(address.into());
        self
    }

    /// Adds a recipient of a copy that is hidden from the others.
    pub fn bcc(mut self, address: impl Into<Address>) -> Self {
        self.0.bcc.push(address.into());
        self
    }

    /// Sets the address for replies.
    pub fn reply_to(mut self, address: impl Into<Address>) -> Self {
        self.0.reply_to = Some(address.into());
        self
    }

    /// Sets the plain text.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.0.text = Some(text.into());
        self
    }

    /// Sets the HTML text.
    pub fn html(mut self, html: impl Into<String>) -> Self {
        self.0.html = Some(html.into());
        self
    }

    /// Attaches a file.
    pub fn attach(
        mut self,
        file_name: impl Into<String>,
        content_type: impl Into<String>,
        content: impl Into<Vec<u8>>,
    ) -> Self {
        self.0.attachments.push(contract::Attachment {
            file_name: file_name.into(),
            content_type: content_type.into(),
            content: content.into(),
        });
        self
    }

    /// Adds a header: `X-*`, `List-*`, `References` or `In-Reply-To`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.headers.push((name.into(), value.into()));
        self
    }

    /// Sends the mail, and returns its Message-ID once the relay has accepted it.
    ///
    /// # Errors
    ///
    /// Returns the error of the host or the relay: [`HostError::Denied`] for a recipient without a grant,
    /// [`HostError::Refused`] for one that the relay refuses, [`HostError::Unavailable`] if the relay is down, …
    pub fn send(self) -> Result<String, HostError> {
        contract::send(&self.0)
    }
}

impl From<&str> for Address {
    fn from(email: &str) -> Self {
        Self { email: email.to_owned(), name: None }
    }
}

impl From<String> for Address {
    fn from(email: String) -> Self {
        Self { email, name: None }
    }
}

/// Converts from a name and an address.
impl From<(String, String)> for Address {
    fn from((name, email): (String, String)) -> Self {
        Self { email, name: Some(name) }
    }
}
