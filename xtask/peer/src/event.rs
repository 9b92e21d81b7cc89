//! An order event that says when it was published.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// As large as those of order-cli, some 200 bytes. `sent` is since 1970.
pub(crate) fn of(id: &str, sent: Duration) -> Vec<u8> {
    format!(
        r#"{{"event":"OrderCreated","order_id":"{id:0>36}","user_id":"somebody_else","product":"Mechanical keyboard","quantity":2,"price":129.90,"currency":"EUR","sent_at":{}}}"#,
        sent.as_micros()
    )
    .into_bytes()
}

/// When it was, as it says itself.
pub(crate) fn sent_at(body: &[u8]) -> Option<Duration> {
    const NAME: &[u8] = br#""sent_at":"#;
    let at = body.windows(NAME.len()).rposition(|window| window == NAME)?;
    let digits = body[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(Duration::from_micros(digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))))
}

/// Since 1970, the same in all processes of this machine.
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
