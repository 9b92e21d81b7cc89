//! Takes in an answer's body as it comes, and says when it has enough.

use bytes::Bytes;
use http::HeaderMap;

/// Takes in one body.
pub trait Body: Send {
    /// The head of the answer is there, and its body will follow. The error is a fragment: why that cannot be taken.
    fn begin(&mut self, headers: &HeaderMap) -> Result<(), String>;

    /// Takes the next bytes; whether more are wanted.
    fn take(&mut self, bytes: &[u8]) -> bool;
}

/// The beginning of a body.
#[derive(Debug)]
pub(super) struct Beginning {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Beginning {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }
}

impl Body for Beginning {
    fn begin(&mut self, _headers: &HeaderMap) -> Result<(), String> {
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> bool {
        let room = self.bytes_max - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        bytes.len() <= room
    }
}
