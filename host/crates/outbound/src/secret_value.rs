//! A secret's value. It never shows itself by accident, and is wiped from memory when it is dropped.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use config::SecretSource;
use hmac::{Hmac, Mac as _};
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use sha2::Sha256;
use state::file::read_bounded;
use zeroize::Zeroizing;

/// Maximum bytes of a value.
const VALUE_BYTES_MAX: u64 = 64 << 10;
/// Prefix before a key's base64 in Standard Webhooks.
pub(crate) const STANDARD_WEBHOOKS_PREFIX: &[u8] = b"whsec_";
/// The environment variable with systemd's folder of a service's credentials.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Characters left unescaped in a query: RFC 3986, "unreserved".
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Characters left unescaped in a path: RFC 3986, "pchar". Some servers do not decode characters that need no
/// escaping, as in `bot123:abc`.
const IN_PATH: &AsciiSet = &IN_QUERY
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// Maximum bytes of a value in a URL. A longer one should not be there.
const IN_URL_BYTES_MAX: usize = 2 << 10;
/// Maximum bytes of a value in a header.
const IN_HEADER_BYTES_MAX: usize = 8 << 10;

/// Base64 with or without padding.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Secret bytes; never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

impl SecretValue {
    /// Creates a value, without the line feed that an editor leaves at the end of a file. The error says what is
    /// wrong.
    pub fn new(bytes: Vec<u8>) -> Result<Self, String> {
        let mut bytes = Zeroizing::new(bytes);
        if bytes.ends_with(b"\n") {
            bytes.pop();
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err("it is empty".to_owned());
        }
        if bytes.len() as u64 > VALUE_BYTES_MAX {
            return Err(format!("it has more than {} KiB", VALUE_BYTES_MAX >> 10));
        }
        Ok(Self(bytes))
    }

    /// Reads the value. The error says what is wrong, and nothing of the value.
    pub fn read(source: &SecretSource) -> Result<Self, String> {
        match source {
            SecretSource::Env(name) => {
                let value = std::env::var_os(name).ok_or("it is not set")?;
                Self::new(value.into_encoded_bytes())
            }
            SecretSource::File(_) | SecretSource::Credential(_) => {
                let path = path_of(source)?.unwrap_or_default();
                let content = read_bounded(&path, VALUE_BYTES_MAX).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => format!("there is no file {}", path.display()),
                    _ => format!("cannot read {}: {error}", path.display()),
                })?;
                Self::new(content)
            }
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the value as text, if it is valid UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Returns the value escaped for the path of a URL.
    pub fn in_path(&self) -> String {
        percent_encode(&self.0, IN_PATH).to_string()
    }

    /// Returns the value escaped for the query of a URL.
    pub fn in_query(&self) -> String {
        percent_encode(&self.0, IN_QUERY).to_string()
    }

    /// Checks that the value can stand in any URL. The error says what is wrong, and nothing of the value.
    pub fn check_for_url(&self) -> Result<(), String> {
        if self.0.len() > IN_URL_BYTES_MAX {
            return Err(format!("its value has more than {} KiB, too much for a URL", IN_URL_BYTES_MAX >> 10));
        }
        // These would remove the path segment before them.
        if matches!(**self.0, [b'.'] | [b'.', b'.']) {
            return Err("its value is nothing that can stand in a URL".to_owned());
        }
        Ok(())
    }

    /// Compares the value with these bytes. The time taken does not reveal where they differ.
    pub fn is(&self, other: &[u8]) -> bool {
        let tag = |bytes: &[u8]| Hmac::<Sha256>::new_from_slice(&self.0).ok().map(|mac| mac.chain_update(bytes));
        let (Some(own), Some(others)) = (tag(&self.0), tag(other)) else { return false };
        others.verify(&own.finalize().into_bytes()).is_ok()
    }

    /// Returns a header with the value after a prefix. The error says what is wrong, and nothing of the value.
    pub fn header(&self, prefix: &str) -> Result<HeaderValue, String> {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~');
        if !prefix.as_bytes().iter().all(is_plain) {
            return Err("what stands before it in the header is not plain ASCII".to_owned());
        }
        if !self.0.iter().all(is_plain) {
            return Err("its value is not plain ASCII, as a header must be: perhaps it has several lines".to_owned());
        }
        if self.0.len() > IN_HEADER_BYTES_MAX {
            return Err(format!("its value has more than {} KiB, too much for a header", IN_HEADER_BYTES_MAX >> 10));
        }
        let header = Zeroizing::new([prefix.as_bytes(), &self.0].concat());
        let mut header =
            HeaderValue::from_bytes(&header).map_err(|_| "its value cannot stand in a header".to_owned())?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// Signs data with the value as the key. After `whsec_` the key is in base64, as in Standard Webhooks.
    pub fn hmac_sha256(&self, data: &[u8]) -> Result<Vec<u8>, String> {
        let key = match self.0.strip_prefix(STANDARD_WEBHOOKS_PREFIX) {
            Some(encoded) => Zeroizing::new(
                BASE64.decode(encoded).map_err(|_| "its value begins with whsec_, and what follows is not base64")?,
            ),
            None => self.0.clone(),
        };
        // An HMAC key may have any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| "its value cannot be a key")?;
        mac.update(data);
        Ok(mac.finalize().into_bytes().to_vec())
    }
}

/// Returns the path of the value, if it is in a file.
pub fn path_of(source: &SecretSource) -> Result<Option<PathBuf>, String> {
    match source {
        SecretSource::Env(_) => Ok(None),
        SecretSource::File(path) => Ok(Some(path.clone())),
        SecretSource::Credential(name) => match std::env::var_os(CREDENTIALS_VARIABLE) {
            Some(folder) => Ok(Some(Path::new(&folder).join(name))),
            None => Err(format!(
                "the host has no credentials: ${CREDENTIALS_VARIABLE} is not set; in its systemd unit write \
                 LoadCredential={name}:PATH"
            )),
        },
    }
}

/// Identifies a version of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    bytes: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns the stamp of the file at this path, if there is one.
    pub fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_value_loses_one_line_feed_and_is_neither_empty_nor_endless() {
        for (text, expected) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")] {
            assert_eq!(value(text).bytes(), expected.as_bytes());
        }
        for (bytes, problem) in [
            (Vec::new(), "it is empty"),
            (b"\n".to_vec(), "it is empty"),
            (vec![b'x'; (64 << 10) + 1], "it has more than 64 KiB"),
        ] {
            assert_eq!(SecretValue::new(bytes).unwrap_err(), problem);
        }
        assert_eq!(SecretValue::new(vec![b'x'; 64 << 10]).unwrap().bytes().len(), 64 << 10);
    }

    #[test]
    fn nothing_shows_a_value() {
        assert_eq!(format!("{:?}", value("hunter2")), "SecretValue(…)");
        let header = value("hunter2").header("Bearer ").unwrap();
        assert_eq!((header.as_bytes(), header.is_sensitive()), (&b"Bearer hunter2"[..], true));
        assert_eq!(format!("{header:?}"), "Sensitive");
        for (prefix, text) in [("", "hunter2\r\nHost: evil"), ("", "hünter2"), ("", "hunter2\0"), ("a\n", "hunter2")] {
            let problem = value(text).header(prefix).unwrap_err();
            assert!(!problem.contains("unter2"), "{problem}");
        }
    }

    #[test]
    fn a_signature_is_that_of_rfc_4231_and_of_standard_webhooks() {
        let signature = value("Jefe").hmac_sha256(b"what do ya want for nothing?").unwrap();
        assert_eq!(BASE64.encode(signature), "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
        // The example of the Standard Webhooks specification.
        let signed = "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}";
        for key in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"] {
            let signature = value(key).hmac_sha256(signed.as_bytes()).unwrap();
            assert_eq!(BASE64.encode(signature), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        }
        assert!(value("whsec_!").hmac_sha256(b"").unwrap_err().contains("not base64"));
    }
}
