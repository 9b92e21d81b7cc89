//! SHA-256 digests that identify content, written the way `sha256sum` prints them.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes of a digest.
pub const BYTES: usize = 32;
/// Bytes read at a time.
const PART_BYTES: usize = 64 << 10;
/// Hexadecimal digits of the short form. Twelve tell a few hundred digests apart.
const SHORT: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; BYTES]);

impl Digest {
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// Hashes everything that `content` yields, without holding all of it in memory.
    pub fn of_all(mut content: impl Read) -> io::Result<Self> {
        let (mut digest, mut part) = (Sha256::new(), vec![0; PART_BYTES]);
        loop {
            match content.read(&mut part) {
                Ok(0) => return Ok(Self(digest.finalize().into())),
                Ok(count) => digest.update(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub fn as_bytes(&self) -> &[u8; BYTES] {
        &self.0
    }

    /// Returns the first 12 hexadecimal digits, for people and file names.
    pub fn short(&self) -> String {
        self.to_string()[..SHORT].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected the 64 hexadecimal digits that `sha256sum` prints, got {text:?}");
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if digits.len() != BYTES * 2 {
            return Err(wrong());
        }
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
            let [high, low] = pair else { return Err(wrong()) };
            *byte = digit(*high).ok_or_else(wrong)? << 4 | digit(*low).ok_or_else(wrong)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_and_written_as_sha256sum_does() {
        // The test vector for "abc" of FIPS 180-4.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), abc);
        assert_eq!(abc.parse(), Ok(Digest::of(b"abc")));
        assert_eq!(format!("sha256:{}", abc.to_uppercase()).parse(), Ok(Digest::of(b"abc")));
        assert_eq!(Digest::of(b"abc").short(), "ba7816bf8f01");
        let long = vec![7; PART_BYTES * 2 + 1];
        assert_eq!(Digest::of_all(&long[..]).unwrap(), Digest::of(&long));
        for wrong in ["", "ba78", &abc.replace('b', "x"), &abc.replace("ba", "ä")] {
            assert!(wrong.parse::<Digest>().unwrap_err().contains("sha256sum"), "{wrong}");
        }
    }
}
