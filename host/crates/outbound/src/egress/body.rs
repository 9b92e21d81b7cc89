//! Receives the body of a response as it arrives, and decides when it has enough.

use bytes::Bytes;
use http::HeaderMap;

/// A receiver of one body.
pub trait Body: Send {
    /// Called when the response's headers have arrived and its body follows. The error is a fragment: why the body is
    /// refused.
    fn begin(&mut self, headers: &HeaderMap) -> Result<(), String>;

    /// Receives the next bytes. Returns whether more are wanted.
    fn take(&mut self, bytes: &[u8]) -> bool;
}

/// Keeps the first bytes of a body, up to a limit.
#[derive(Debug)]
pub(super) struct BoundedBody {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl BoundedBody {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }
}

impl Body for BoundedBody {
    fn begin(&mut self, _headers: &HeaderMap) -> Result<(), String> {
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> bool {
        let room = self.bytes_max - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        bytes.len() <= room
    }
}
