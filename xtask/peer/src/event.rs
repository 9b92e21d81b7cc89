//! An order event that contains its publishing time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Builds an event of about 200 bytes, as large as order-cli's. `sent` is the time since 1970.
pub(crate) fn of(id: &str, sent: Duration) -> Vec<u8> {
    format!(
        r#"{{"event":"OrderCreated","order_id":"{id:0>36}","user_id":"somebody_else","product":"Mechanical keyboard","quantity":2,"price":129.90,"currency":"EUR","sent_at":{}}}"#,
        sent.as_micros()
    )
    .into_bytes()
}

/// Returns the publishing time in the event.
pub(crate) fn sent_at(body: &[u8]) -> Option<Duration> {
    const NAME: &[u8] = br#""sent_at":"#;
    let at = body.windows(NAME.len()).rposition(|window| window == NAME)?;
    let digits = body[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(Duration::from_micros(digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))))
}

/// Returns the time since 1970. All processes of this machine use the same clock.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_when_it_was_sent() {
        let sent = Duration::from_micros(1_795_790_000_123_456);
        let event = of("1-2", sent);
        assert_eq!(sent_at(&event), Some(sent));
        assert!((180..=220).contains(&event.len()), "{}", event.len());
        assert_eq!(sent_at(b"{}"), None);
    }
}
