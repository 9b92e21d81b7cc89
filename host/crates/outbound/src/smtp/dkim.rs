//! DKIM signatures, by which a receiver can tell that a mail comes from the domain (RFC 6376, and RFC 8463 for
//! Ed25519). Headers and body use relaxed canonicalization, so that relays may refold lines.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use config::DkimConfig;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{SignatureAlgorithm, SignatureScheme};
use sha2::{Digest as _, Sha256};
use state::file::read_bounded;

const KEY_BYTES_MAX: u64 = 1 << 20;

/// Header fields that are signed. Each is listed once per occurrence and once more, so that nobody can add another.
const SIGNED: [&str; 17] = [
    "from",
    "to",
    "cc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "auto-submitted",
    "list-id",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "sender",
];

pub(super) struct Signer {
    domain: String,
    selector: String,
    algorithm: &'static str,
    key: Box<dyn rustls::sign::Signer>,
}

impl Signer {
    /// Loads the key. The error is a fragment.
    pub(super) fn load(config: &DkimConfig) -> anyhow::Result<Self> {
        Self::new(config, &read_bounded(&config.key, KEY_BYTES_MAX)?)
    }

    fn new(config: &DkimConfig, pem: &[u8]) -> anyhow::Result<Self> {
        let key = PrivateKeyDer::from_pem_slice(pem).ok().context("there is no private key in PEM in it")?;
        let key = any_supported_type(&key).ok().context("its key is neither RSA of at least 2048 bits nor Ed25519")?;
        let (algorithm, scheme) = match key.algorithm() {
            SignatureAlgorithm::RSA => ("rsa-sha256", SignatureScheme::RSA_PKCS1_SHA256),
            SignatureAlgorithm::ED25519 => ("ed25519-sha256", SignatureScheme::ED25519),
            _ => bail!("its key is neither RSA nor Ed25519"),
        };
        let key = key.choose_scheme(&[scheme]).context("its key cannot sign")?;
        Ok(Self { domain: config.domain.clone(), selector: config.selector.clone(), algorithm, key })
    }

    /// Returns the message with a signature in front, dated `now` in seconds since 1970.
    pub(super) fn sign(&self, message: &[u8], now: i64) -> anyhow::Result<Vec<u8>> {
        let text = std::str::from_utf8(message).context("it is not ASCII")?;
        let (head, body) = text.split_once("\r\n\r\n").context("it has no body")?;
        let fields = fields(head);
        // Fields with the same name are signed from the last to the first.
        let of_name = |name: &str| {
            let own = |field: &&String| field.split(':').next().is_some_and(|own| own == name);
            fields.iter().filter(own).rev().cloned().collect::<Vec<_>>()
        };
        let (mut names, mut signed) = (Vec::new(), String::new());
        for name in SIGNED {
            let own = of_name(name);
            names.extend(std::iter::repeat_n(name, own.len() + 1));
            for field in own {
                signed.push_str(&field);
                signed.push_str("\r\n");
            }
        }
        let mut header = format!(
            "DKIM-Signature: v=1; a={}; c=relaxed/relaxed; d={};\r\n s={}; t={now};\r\n h=",
            self.algorithm, self.domain, self.selector
        );
        fold(&mut header, &names.join(":"), ':');
        let body_hash = BASE64_STANDARD.encode(Sha256::digest(relaxed_body(body)));
        let _ = write!(header, ";\r\n bh={body_hash};\r\n b=");
        signed.push_str(&relaxed_field(&header));
        let signature = match self.algorithm {
            "ed25519-sha256" => self.key.sign(&Sha256::digest(signed)),
            _ => self.key.sign(signed.as_bytes()),
        };
        let signature = BASE64_STANDARD.encode(signature.context("the signature failed")?);
        for (number, line) in signature.as_bytes().chunks(72).enumerate() {
            header.push_str(if number > 0 { "\r\n " } else { "" });
            header.extend(line.iter().map(|byte| char::from(*byte)));
        }
        header.push_str("\r\n");
        let mut whole = header.into_bytes();
        whole.extend_from_slice(message);
        Ok(whole)
    }
}

/// Appends a list, folded into lines of limited length.
fn fold(header: &mut String, list: &str, separator: char) {
    let mut width = 0;
    for part in list.split_inclusive(separator) {
        if width + part.len() > 72 {
            header.push_str("\r\n ");
            width = 0;
        }
        header.push_str(part);
        width += part.len();
    }
}

/// Returns the fields of a head, each in its relaxed form.
fn fields(head: &str) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for line in head.split("\r\n") {
        match fields.last_mut() {
            Some(field) if line.starts_with([' ', '\t']) => {
                field.push_str("\r\n");
                field.push_str(line);
            }
            _ => fields.push(line.to_owned()),
        }
    }
    fields.iter().map(|field| relaxed_field(field)).collect()
}

/// Relaxes a field: name in lower case, all on one line, each run of blanks one space.
fn relaxed_field(field: &str) -> String {
    let (name, value) = field.split_once(':').unwrap_or((field, ""));
    let value: Vec<_> = value.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()).collect();
    format!("{}:{}", name.trim_end().to_ascii_lowercase(), value.join(" "))
}

/// Relaxes a body: each run of blanks one space, none at the ends of lines, no empty lines at the end.
fn relaxed_body(body: &str) -> String {
    let mut relaxed = String::with_capacity(body.len());
    for line in body.split("\r\n") {
        let line = line.trim_end_matches([' ', '\t']);
        let mut was_blank = false;
        for character in line.chars() {
            let is_blank = matches!(character, ' ' | '\t');
            if !is_blank {
                relaxed.push(character);
            } else if !was_blank {
                relaxed.push(' ');
            }
            was_blank = is_blank;
        }
        relaxed.push_str("\r\n");
    }
    let end = relaxed.trim_end_matches("\r\n").len();
    if end == 0 {
        return String::new();
    }
    relaxed.truncate(end + 2);
    relaxed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_relaxed_as_rfc_6376_says() {
        // The example of RFC 6376, section 3.4.5.
        assert_eq!(fields("A: X\r\nB : Y\t\r\n\tZ  "), ["a:X", "b:Y Z"]);
        assert_eq!(relaxed_body(" C \r\nD \t E\r\n\r\n\r\n"), " C\r\nD E\r\n");
        assert_eq!(relaxed_body(""), "");
        assert_eq!(relaxed_body("\r\n\r\n"), "");
        assert_eq!(relaxed_body("a"), "a\r\n");
    }
}
