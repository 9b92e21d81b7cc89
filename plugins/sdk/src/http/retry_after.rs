//! `Retry-After`: the delay that a server requests (RFC 9110, 10.2.3).

use std::time::{Duration, SystemTime};

/// Longest delay that a plugin honours.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// Parses `Retry-After`: seconds (some servers send fractions), or a date.
///
/// A date counts from `now`, which should be the server's own `Date`. Returns `None` if the value is neither.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use notify_plugin::http::parse_retry_after;
///
/// assert_eq!(parse_retry_after("120", SystemTime::UNIX_EPOCH), Some(Duration::from_secs(120)));
/// let a_minute_later = "Thu, 01 Jan 1970 00:01:00 GMT";
/// assert_eq!(parse_retry_after(a_minute_later, SystemTime::UNIX_EPOCH), Some(Duration::from_secs(60)));
/// ```
pub fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = match seconds(value) {
        Some(wait) => wait,
        // A past date requests no delay.
        None => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Parses digits with an optional fraction.
fn seconds(value: &str) -> Option<Duration> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let is_number = !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !is_number {
        return None;
    }
    // A number that overflows is a very long delay.
    let whole = Duration::from_secs(whole.parse().unwrap_or(u64::MAX));
    // Round up, so that the request never comes too early.
    let started = u64::from(fraction.bytes().any(|digit| digit != b'0'));
    let millis = format!("{fraction:0<3.3}").parse::<u64>().unwrap_or_default() + started;
    Some(whole.saturating_add(Duration::from_millis(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn check(value: &str, expected: Option<Duration>) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        assert_eq!(parse_retry_after(value, now), expected, "{value:?}");
    }

    #[test]
    fn seconds_and_dates_are_understood() {
        check("0", Some(Duration::ZERO));
        check(" 120 ", Some(Duration::from_mins(2)));
        check("1.5", Some(Duration::from_millis(1501)));
        check("2.", Some(Duration::from_secs(2)));
        let date = |seconds| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + seconds));
        check(&date(90), Some(Duration::from_secs(90)));
        check(&date(0), Some(Duration::ZERO));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::ZERO));
        // The two obsolete date formats.
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(Duration::ZERO));
        check("Sun Nov  6 08:49:37 1994", Some(Duration::ZERO));
    }

    #[test]
    fn nobody_is_left_alone_for_ever() {
        check("86401", Some(RETRY_AFTER_MAX));
        check(&"9".repeat(400), Some(RETRY_AFTER_MAX));
        check("18446744073709551615.9", Some(RETRY_AFTER_MAX));
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn what_says_neither_says_nothing() {
        for value in ["", "-1", "+1", "soon", "1e3", "0x10", ".5", "1.2.3", "1 2", "١", "Sun, 99 Nov 1994 08:49:37 GMT"]
        {
            check(value, None);
        }
    }
}
