//! Quiet hours, `quiet-hours = "22:00-07:00 Europe/Berlin"`: the plugin is not called, and its deliveries wait.
//!
//! The time zone has no default. Otherwise the same file would mean different hours on a server and in a container,
//! whose clock shows UTC, and nobody would notice before the first night.

use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// Maximum number of windows of one plugin.
const WINDOWS_MAX: usize = 50;
/// Number of days within which each window begins again.
const DAYS_TO_NEXT: i64 = 8;
/// Maximum characters of a text quoted in an error.
const SHOWN_CHARACTERS_MAX: usize = 60;
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// All windows of one plugin; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuietHours(Vec<Window>);

/// A time of day on some days of the week, in one time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    /// Days on which the window begins, from Monday.
    days: [bool; 7],
    from: Time,
    /// End of the window: on the next day, unless it is later than `from`.
    to: Time,
    zone: TimeZone,
}

/// A period that is either quiet or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spell {
    pub is_quiet: bool,
    pub from: Timestamp,
    pub until: Timestamp,
    /// Time zone in which the end is shown.
    zone: TimeZone,
}

impl Spell {
    pub fn holds(&self, now: Timestamp) -> bool {
        (self.from..self.until).contains(&now)
    }

    /// Formats the end: `2026-11-26 07:00 Europe/Berlin`.
    pub fn end(&self) -> String {
        let format = if self.until.as_second() % 60 == 0 { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M:%S" };
        let end = self.zone.to_datetime(self.until).strftime(format).to_string();
        format!("{end} {}", self.zone.iana_name().unwrap_or("UTC"))
    }
}

impl QuietHours {
    /// Combines the windows. The error says why they cannot be intended.
    pub(super) fn together(windows: Vec<WindowSetting>) -> Result<Self, String> {
        if windows.len() > WINDOWS_MAX {
            return Err(format!("there are {} windows, and may be {WINDOWS_MAX}", windows.len()));
        }
        let hours = Self(windows.into_iter().map(|WindowSetting(window)| window).collect());
        let spell = hours.at(Timestamp::UNIX_EPOCH);
        let week = Timestamp::UNIX_EPOCH.saturating_add(Span::new().hours(24 * DAYS_TO_NEXT));
        if spell.is_quiet && week.is_ok_and(|week| spell.until >= week) {
            return Err("they leave no time at all; to switch a plugin off, say enabled = false".to_owned());
        }
        Ok(hours)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether it is quiet now, and until when that stays so.
    pub fn at(&self, now: Timestamp) -> Spell {
        let (mut until, mut zone) = (now, TimeZone::UTC);
        // Windows that touch or overlap are merged. More than a week without an end means that there is none.
        for _ in 0..WINDOWS_MAX * 7 {
            let ends = self.0.iter().filter_map(|window| Some((window.around(until)?, &window.zone)));
            let Some((end, of)) = ends.max_by_key(|(end, _)| *end) else { break };
            (until, zone) = (end, of.clone());
            if until.duration_since(now) > jiff::SignedDuration::from_hours(24 * DAYS_TO_NEXT) {
                break;
            }
        }
        if until > now {
            return Spell { is_quiet: true, from: now, until, zone };
        }
        let begins = self.0.iter().filter_map(|window| window.next(now)).min();
        Spell { is_quiet: false, from: now, until: begins.unwrap_or(Timestamp::MAX), zone }
    }
}

impl Window {
    /// Returns the end of the occurrence that contains `now`.
    fn around(&self, now: Timestamp) -> Option<Timestamp> {
        let today = self.zone.to_datetime(now).date();
        let dates = [today.yesterday().ok(), Some(today)].into_iter().flatten();
        dates.filter_map(|date| self.on(date)).filter(|(from, to)| (*from..*to).contains(&now)).map(|(_, to)| to).max()
    }

    /// Returns the next time that the window begins.
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let today = self.zone.to_datetime(now).date();
        let dates = (0..=DAYS_TO_NEXT).filter_map(|days| today.checked_add(Span::new().days(days)).ok());
        dates.filter_map(|date| self.on(date)).map(|(from, _)| from).find(|from| *from > now)
    }

    /// Returns begin and end of the window if it begins on this date. When clocks change, a local time that does not
    /// exist or exists twice is read as in a calendar (RFC 5545, 3.3.5): with the offset before the gap, and as the
    /// first of the two.
    fn on(&self, date: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days[usize::try_from(date.weekday().to_monday_zero_offset()).ok()?] {
            return None;
        }
        let last = if self.to <= self.from { date.tomorrow().ok()? } else { date };
        let at = |date: Date, time| self.zone.to_ambiguous_timestamp(date.to_datetime(time)).compatible().ok();
        let (from, to) = (at(date, self.from)?, at(last, self.to)?);
        (from < to).then_some((from, to))
    }
}

/// A window as written in the file.
pub(super) struct WindowSetting(Window);

impl FromStr for WindowSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
        let wrong = |what: &str| {
            format!(
                "{what}; expected days, times and a zone, such as \"22:00-07:00 Europe/Berlin\" or \"sat,sun UTC\", got {shown:?}"
            )
        };
        let mut words: Vec<_> = text.split_whitespace().collect();
        let is_zone = |word: &&str| !word.contains(':') && word.starts_with(|first: char| first.is_ascii_uppercase());
        let zone = words.pop_if(|word| is_zone(&&**word)).ok_or_else(|| wrong("it does not say in which time zone"))?;
        let zone = TimeZone::get(zone).map_err(|_| wrong(&format!("there is no time zone {zone:?}")))?;
        let times = words.pop_if(|word| word.contains(':'));
        let (from, to) = match times {
            Some(times) => {
                let (from, to) = times.split_once('-').ok_or_else(|| wrong("it does not say until when"))?;
                let time = |text: &str| time(text).ok_or_else(|| wrong(&format!("{text:?} is no time of the day")));
                (time(from)?, time(to)?)
            }
            None => (Time::midnight(), Time::midnight()),
        };
        if times.is_some() && from == to {
            return Err(wrong("it ends when it begins"));
        }
        let days = match words[..] {
            [] if times.is_some() => [true; 7],
            [] => return Err(wrong("it names neither days nor times")),
            [list] => days(list).map_err(|problem| wrong(&problem))?,
            _ => return Err(wrong("there is too much in it")),
        };
        Ok(Self(Window { days, from, to, zone }))
    }
}

/// Parses a time of day: `07:00` or `07:00:30`.
fn time(text: &str) -> Option<Time> {
    let is_time = matches!(text.len(), 5 | 8) && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    text.parse().ok().filter(|_| is_time)
}

/// Parses a list of days: `mon-fri,sun`.
fn days(list: &str) -> Result<[bool; 7], String> {
    let number = |name: &str| {
        let found = DAYS.iter().position(|(day, _)| *day == name);
        found.ok_or_else(|| format!("{name:?} is no day of the week, of mon, tue, wed, thu, fri, sat and sun"))
    };
    let mut chosen = [false; 7];
    for part in list.split(',') {
        let (first, end) = match part.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(part)?, number(part)?),
        };
        // `sat-mon` wraps around the end of the week.
        let count = (end + 7 - first) % 7;
        for offset in 0..=count {
            chosen[(first + offset) % 7] = true;
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hours(windows: &[&str]) -> Result<QuietHours, String> {
        QuietHours::together(windows.iter().map(|window| window.parse()).collect::<Result<_, _>>()?)
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    /// Checks whether it is quiet at `now`, and that this lasts until `expected`.
    fn check(windows: &[&str], now: &str, is_quiet: bool, expected: &str) {
        let spell = hours(windows).unwrap().at(at(now));
        assert_eq!((spell.is_quiet, spell.until), (is_quiet, at(expected)), "{windows:?} at {now}");
    }

    #[test]
    fn a_night_is_quiet_on_the_clocks_of_its_place() {
        let night = ["22:00-07:00 Europe/Berlin"];
        check(&night, "2026-01-10T20:59:59Z", false, "2026-01-10T21:00:00Z");
        check(&night, "2026-01-10T21:00:00Z", true, "2026-01-11T06:00:00Z");
        check(&night, "2026-01-11T05:59:59.999Z", true, "2026-01-11T06:00:00Z");
        check(&night, "2026-01-11T06:00:00Z", false, "2026-01-11T21:00:00Z");
        check(&night, "2026-07-10T20:30:00Z", true, "2026-07-11T05:00:00Z");
        check(&["12:00-12:30 UTC"], "2026-01-10T12:29:00Z", true, "2026-01-10T12:30:00Z");
    }

    #[test]
    fn the_night_when_the_clocks_change_is_an_hour_shorter_or_longer() {
        let night = ["22:00-07:00 Europe/Berlin"];
        check(&night, "2026-03-28T21:00:00Z", true, "2026-03-29T05:00:00Z");
        check(&night, "2026-10-24T20:00:00Z", true, "2026-10-25T06:00:00Z");
        // 02:30 does not exist and becomes 03:30.
        check(&["01:00-02:30 Europe/Berlin"], "2026-03-29T00:30:00Z", true, "2026-03-29T01:30:00Z");
        // 02:30 exists twice, and the first is meant.
        check(&["01:00-02:30 Europe/Berlin"], "2026-10-25T00:00:00Z", true, "2026-10-25T00:30:00Z");
        check(&["01:00-02:30 Europe/Berlin"], "2026-10-25T01:15:00Z", false, "2026-10-26T00:00:00Z");
        // Wholly within the skipped hour: as long as ever.
        check(&["02:10-02:20 Europe/Berlin"], "2026-03-29T01:15:00Z", true, "2026-03-29T01:20:00Z");
        // It would end before it begins, so it is left out.
        check(&["02:50-03:10 Europe/Berlin"], "2026-03-29T01:05:00Z", false, "2026-03-30T00:50:00Z");
    }

    #[test]
    fn days_are_those_on_which_a_window_begins() {
        // 2026-11-27 is a Friday.
        check(&["fri 22:00-07:00 UTC"], "2026-11-28T06:00:00Z", true, "2026-11-28T07:00:00Z");
        check(&["fri 22:00-07:00 UTC"], "2026-11-28T22:00:00Z", false, "2026-12-04T22:00:00Z");
        check(&["sat,sun UTC"], "2026-11-28T00:00:00Z", true, "2026-11-30T00:00:00Z");
        check(&["mon-fri 09:00-10:00 UTC"], "2026-11-27T10:00:00Z", false, "2026-11-30T09:00:00Z");
        check(&["sat-mon UTC"], "2026-11-28T12:00:00Z", true, "2026-12-01T00:00:00Z");
    }

    #[test]
    fn windows_that_touch_are_one() {
        let both = ["22:00-07:00 Europe/Berlin", "sat,sun Europe/Berlin"];
        check(&both, "2026-11-27T22:00:00Z", true, "2026-11-30T06:00:00Z");
        check(&["08:00-09:00 UTC", "09:00-10:00 UTC"], "2026-11-27T08:30:00Z", true, "2026-11-27T10:00:00Z");
    }

    #[test]
    fn none_is_never_quiet() {
        let spell = QuietHours::default().at(at("2026-11-27T10:00:00Z"));
        assert_eq!((spell.is_quiet, spell.until), (false, Timestamp::MAX));
        assert!(!QuietHours::default().at(Timestamp::MAX).is_quiet);
        assert!(!hours(&["22:00-07:00 Asia/Tokyo"]).unwrap().at(Timestamp::MIN).is_quiet);
    }

    #[test]
    fn the_end_is_told_on_the_clocks_of_the_place() {
        let end = |window| hours(&[window]).unwrap().at(at("2026-11-27T22:30:00Z")).end();
        assert_eq!(end("22:00-07:00 Europe/Berlin"), "2026-11-28 07:00 Europe/Berlin");
        assert_eq!(end("22:00-22:30:05 UTC"), "2026-11-27 22:30:05 UTC");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (windows, expected) in [
            (&["22:00-07:00"][..], "it does not say in which time zone; expected days, times and a zone"),
            (&["sat,sun"], "it does not say in which time zone"),
            (&["22:00-07:00 Europe/Berlim"], "there is no time zone \"Europe/Berlim\""),
            (&["22-07 UTC"], "\"22\" is no day of the week"),
            (&["25:00-07:00 UTC"], "\"25:00\" is no time of the day"),
            (&["22:00 UTC"], "it does not say until when"),
            (&["07:00-07:00 UTC"], "it ends when it begins"),
            (&["UTC"], "it names neither days nor times"),
            (&["sat sun UTC"], "there is too much in it"),
            (&["sat,,sun UTC"], "\"\" is no day of the week"),
            (&["Sat UTC"], "\"Sat\" is no day of the week"),
            (&[""], "it does not say in which time zone"),
            (&["00:00-12:00 UTC", "12:00-00:00 UTC"], "they leave no time at all"),
            (&["mon-sun Asia/Tokyo"], "they leave no time at all"),
        ] {
            let error = hours(windows).unwrap_err();
            assert!(error.starts_with(expected), "{windows:?}: {error}");
        }
    }

    #[test]
    fn zones_are_known_without_those_of_the_system() {
        assert!(jiff::tz::TimeZoneDatabase::bundled().get("Europe/Berlin").is_ok());
    }

    proptest! {
        /// Nothing changes within a spell, and the next spell begins where it ends.
        #[test]
        fn spells_follow_each_other(
            second in 1_700_000_000_i64..1_900_000_000,
            from in 0_i8..24,
            length in 1_i8..24,
            day in 0_usize..7,
            part in 0.0..1.0,
        ) {
            let to = (from + length) % 24;
            let (first, _) = DAYS[day];
            let hours = hours(&[
                &format!("{from:02}:00-{to:02}:00 America/New_York"), &format!("{first} 10:30-02:30 Europe/Berlin"),
            ]);
            // The two windows together may cover the whole week.
            let Ok(hours) = hours else { return Ok(()) };
            let now = Timestamp::from_second(second).unwrap();
            let spell = hours.at(now);
            prop_assert!(spell.until > now);
            let length = spell.until.duration_since(now).mul_f64(part);
            let within = now.saturating_add(length).unwrap();
            if within < spell.until {
                let again = hours.at(within);
                prop_assert_eq!((again.is_quiet, again.until), (spell.is_quiet, spell.until));
            }
            prop_assert_ne!(hours.at(spell.until).is_quiet, spell.is_quiet);
        }
    }
}
