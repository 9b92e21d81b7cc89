//! Signatures by Standard Webhooks (<https://www.standardwebhooks.com>). The host makes the digests, so
//! the plugin has no key.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// The content to sign.
#[derive(Debug)]
pub(crate) struct SignedContent {
    /// Seconds since 1970.
    timestamp: u64,
    pub(crate) signed: Vec<u8>,
}

/// Builds `id.timestamp.body`.
pub(crate) fn content(id: &str, now: SystemTime, body: &[u8]) -> SignedContent {
    let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut signed = Vec::with_capacity(id.len() + 24 + body.len());
    signed.extend_from_slice(format!("{id}.{timestamp}.").as_bytes());
    signed.extend_from_slice(body);
    SignedContent { timestamp, signed }
}

/// Returns the three headers, with a signature for each secret. A receiver accepts any of them.
pub(crate) fn headers(id: &str, content: &SignedContent, digests: &[Vec<u8>]) -> [(String, String); 3] {
    let signatures: Vec<_> = digests.iter().map(|digest| format!("v1,{}", BASE64_STANDARD.encode(digest))).collect();
    [
        ("webhook-id".to_owned(), id.to_owned()),
        ("webhook-timestamp".to_owned(), content.timestamp.to_string()),
        ("webhook-signature".to_owned(), signatures.join(" ")),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn identity_and_time_are_signed_with_the_body() {
        let now = UNIX_EPOCH + Duration::from_millis(1_614_265_330_999);
        let content = content("msg_p5jXN8AQM9LWM0D4loKWxJek", now, b"{\"test\": 2432232314}");
        assert_eq!(
            String::from_utf8_lossy(&content.signed),
            "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}"
        );
        let headers = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", &content, &[vec![0; 32], vec![255; 32]]);
        let headers = headers.each_ref().map(|(name, value)| (&**name, &**value));
        assert_eq!(headers[0], ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"));
        assert_eq!(headers[1], ("webhook-timestamp", "1614265330"));
        assert_eq!(
            headers[2].1,
            "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= v1,//////////////////////////////////////////8="
        );
    }
}
