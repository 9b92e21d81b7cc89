//! When a plugin is called, and how failures are treated: defaults in the host's file, overridden beside a
//! plugin.

use std::time::Duration;

use crate::config::quiet::QuietHours;
use crate::config::rate::Rate;
use crate::config::reader::{Faults, Table};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// How often, and how far apart, a delivery is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// After so many it is given up.
    pub(crate) attempts_max: u32,
    /// The wait after the first failure; each further one is four times as long.
    pub(crate) pause_min: Duration,
    /// No wait is longer, whatever the plugin asks for.
    pub(crate) pause_max: Duration,
    /// A delivery is given up if the next attempt would come later than this after the first.
    pub(crate) age_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 8, pause_min: Duration::from_secs(1), pause_max: HOUR, age_max: DAY }
    }
}

/// When a failing plugin is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BreakerPolicy {
    /// Opens when this share of the calls failed, in per cent.
    pub(crate) failures_percent: u32,
    /// Of at least so many calls.
    pub(crate) calls_min: usize,
    /// That ended within this time.
    pub(crate) window: Duration,
    /// How long to wait until a probe; twice as long after each that fails.
    pub(crate) pause_min: Duration,
    pub(crate) pause_max: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failures_percent: 50,
            calls_min: 10,
            window: Duration::from_mins(1),
            pause_min: Duration::from_secs(5),
            pause_max: Duration::from_mins(5),
        }
    }
}

/// How often a plugin is called, and when it is not. What that keeps away from it waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PacePolicy {
    /// `None`: as often as there is something.
    pub(crate) rate: Option<Rate>,
    pub(crate) quiet_hours: QuietHours,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    pub(crate) retry: RetryPolicy,
    pub(crate) breaker: BreakerPolicy,
    pub(crate) pace: PacePolicy,
}

impl Policies {
    /// The tables `retry` and `breaker` of a file, `rate` and `quiet-hours`; what they do not say stays as it is.
    pub(super) fn read(self, faults: &mut Faults<'_>, top: &mut Table<'_>) -> Self {
        Self {
            retry: top.table(faults, "retry").map_or(self.retry, |table| retry(faults, table, self.retry)),
            breaker: top.table(faults, "breaker").map_or(self.breaker, |table| breaker(faults, table, self.breaker)),
            pace: PacePolicy {
                rate: Rate::read(faults, top, self.pace.rate),
                quiet_hours: top
                    .one_or_more(faults, "quiet-hours", QuietHours::together)
                    .unwrap_or(self.pace.quiet_hours),
            },
        }
    }
}

fn retry(faults: &mut Faults<'_>, mut table: Table<'_>, default: RetryPolicy) -> RetryPolicy {
    // RabbitMQ's retry queues are no finer than a second, and no longer than an hour.
    let pause = Duration::from_secs(1)..HOUR + Duration::from_secs(1);
    let policy = RetryPolicy {
        attempts_max: number(table.number(faults, "attempts", 1..1001), default.attempts_max),
        pause_min: table.duration(faults, "pause-min", pause.clone()).unwrap_or(default.pause_min),
        pause_max: table.duration(faults, "pause-max", pause).unwrap_or(default.pause_max),
        age_max: table.duration(faults, "age-max", Duration::from_secs(1)..365 * DAY).unwrap_or(default.age_max),
    };
    if policy.pause_min > policy.pause_max {
        table.fault(faults, "pause-min is longer than pause-max");
    }
    table.finish(faults);
    policy
}

fn breaker(faults: &mut Faults<'_>, mut table: Table<'_>, default: BreakerPolicy) -> BreakerPolicy {
    let pause = Duration::from_millis(100)..DAY;
    let calls = number(table.number(faults, "calls", 1..10_001), 0);
    let policy = BreakerPolicy {
        failures_percent: number(table.number(faults, "failures-percent", 1..101), default.failures_percent),
        calls_min: usize::try_from(calls).ok().filter(|calls| *calls > 0).unwrap_or(default.calls_min),
        window: table.duration(faults, "window", Duration::from_secs(1)..DAY).unwrap_or(default.window),
        pause_min: table.duration(faults, "pause-min", pause.clone()).unwrap_or(default.pause_min),
        pause_max: table.duration(faults, "pause-max", pause).unwrap_or(default.pause_max),
    };
    if policy.pause_min > policy.pause_max {
        table.fault(faults, "pause-min is longer than pause-max");
    }
    table.finish(faults);
    policy
}

fn number(number: Option<u64>, default: u32) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
}
