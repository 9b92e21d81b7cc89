//! The rate limit of a plugin, `rate = "30/min"`.

use std::str::FromStr;
use std::time::Duration;

use crate::reader::{Faults, Table, key};

/// Maximum number of calls in one unit of time.
const LIMIT_MAX: u32 = 100_000;
/// Maximum burst: calls at once after an idle period.
const BURST_MAX: u32 = 10_000;
const UNITS: [(&str, Duration); 4] = [
    ("s", Duration::from_secs(1)),
    ("min", Duration::from_mins(1)),
    ("h", Duration::from_hours(1)),
    ("day", Duration::from_hours(24)),
];
/// The word for no rate limit. It overrides the rate in the host's file.
const UNLIMITED: &str = "unlimited";

/// A number of calls per unit of time, spread evenly. Each attempt is a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    limit: u32,
    unit: &'static str,
    /// Calls that may be made at once after a long enough idle period.
    burst: u32,
}

impl Rate {
    /// Reads the key `rate`, a string or a table; without it, returns `default`.
    pub(super) fn read(faults: &mut Faults<'_>, top: &mut Table<'_>, default: Option<Self>) -> Option<Self> {
        let own = key("rate", "How often a plugin is called at most, by each host. A plugin's own file may say otherwise; \"unlimited\" is no rate")
            .default("\"unlimited\"")
            .example("\"30/min\"")
            .live();
        let setting = |text: &str| text.parse().map(|Setting(rate)| rate);
        let rate = top.text_or_table(faults, own, setting, |faults, mut table| {
            if !table.has("limit") {
                table.fault(faults, "limit is missing, such as \"30/min\"");
            }
            let limit = key("limit", "So many calls in a unit of time").required().example("30/min").live();
            let burst = key("burst", "Calls that may be made at once, when there were none for long enough")
                .default("1")
                .live();
            let rate = table.parsed::<Self>(faults, limit);
            let burst = table.number(faults, burst, 1..u64::from(BURST_MAX) + 1);
            table.finish(faults);
            let burst = burst.and_then(|burst| u32::try_from(burst).ok()).unwrap_or(1);
            Some(rate.map(|rate| rate.with_burst(burst)))
        });
        rate.unwrap_or(default)
    }

    /// Returns the time between two calls when many are waiting.
    pub fn interval(&self) -> Duration {
        UNITS.iter().find(|(name, _)| *name == self.unit).map_or(Duration::ZERO, |(_, unit)| *unit / self.limit)
    }

    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Returns the same limit with another burst.
    #[must_use]
    pub fn with_burst(self, burst: u32) -> Self {
        Self { burst, ..self }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.limit, self.unit)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("expected calls in a unit of time such as \"30/min\", of s, min, h and day, got {text:?}");
        let (limit, unit) = text.split_once('/').ok_or_else(wrong)?;
        let (unit, _) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        let limit = limit.trim();
        let digits = !limit.is_empty() && limit.bytes().all(|byte| byte.is_ascii_digit());
        if !digits {
            return Err(wrong());
        }
        match limit.parse() {
            Ok(limit @ 1..=LIMIT_MAX) => Ok(Self { limit, unit, burst: 1 }),
            _ => Err(format!("expected 1 to {LIMIT_MAX} calls, got {limit}")),
        }
    }
}

/// A rate, or `unlimited`.
struct Setting(Option<Rate>);

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == UNLIMITED {
            return Ok(Self(None));
        }
        text.parse().map(|rate| Self(Some(rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_so_many_calls_in_a_unit_of_time() {
        for (text, millis) in
            [("5/s", 200), ("30/min", 2000), (" 30 / min ", 2000), ("1/h", 3_600_000), ("1/day", 86_400_000)]
        {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.interval().as_millis(), rate.burst()), (millis, 1), "{text}");
        }
        for text in
            ["30", "30/week", "/s", "-1/s", "+1/s", "1.5/s", "0/s", "100001/s", "99999999999/s", "s/30", "30/min/s"]
        {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.starts_with("expected "), "{text}: {error}");
        }
    }
}
