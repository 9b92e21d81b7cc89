//! Policies for calling a plugin and for treating its failures. The host's file has the defaults; a plugin's file
//! overrides them.

use std::time::Duration;

use crate::quiet::QuietHours;
use crate::rate::Rate;
use crate::reader::{Faults, Table, key};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// How often a delivery is attempted, and at which intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Maximum number of attempts. Then the delivery is given up.
    pub attempts_max: u32,
    /// Wait after the first failure. Each further wait is four times as long.
    pub pause_min: Duration,
    /// Maximum wait, whatever the plugin asks for.
    pub pause_max: Duration,
    /// A delivery is given up if its next attempt would start later than this after the first.
    pub age_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 8, pause_min: Duration::from_secs(1), pause_max: HOUR, age_max: DAY }
    }
}

/// When the circuit breaker stops calling a failing plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// The breaker opens when this percentage of the calls failed.
    pub failures_percent: u32,
    /// Minimum number of calls to judge by.
    pub calls_min: usize,
    /// Only calls that ended within this time count.
    pub window: Duration,
    /// Wait before the first probe. It doubles after each probe that fails.
    pub pause_min: Duration,
    pub pause_max: Duration,
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

/// How often a plugin may be called, and when it must not be. Deliveries that are held back wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThrottlePolicy {
    /// `None`: no limit.
    pub rate: Option<Rate>,
    pub quiet_hours: QuietHours,
}

/// All policies of one plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    pub retry: RetryPolicy,
    pub breaker: BreakerPolicy,
    pub throttle: ThrottlePolicy,
}

impl Policies {
    /// Reads `retry`, `breaker`, `rate` and `quiet-hours`. Settings that the file leaves out keep their value.
    pub(super) fn read(self, faults: &mut Faults<'_>, top: &mut Table<'_>) -> Self {
        let retries = key("retry", "How often, and how far apart, a delivery is tried");
        let breakers = key("breaker", "When a failing plugin is left alone for a while");
        let quiet_hours = key("quiet-hours", "When a plugin is not called, and what comes for it waits in its queue: days, times and a zone, or a list of such. A plugin's own file may say otherwise")
            .default("[]")
            .example("\"22:00-07:00 Europe/Berlin\"")
            .live();
        Self {
            throttle: ThrottlePolicy {
                rate: Rate::read(faults, top, self.throttle.rate),
                quiet_hours: top
                    .one_or_more(faults, quiet_hours, QuietHours::together)
                    .unwrap_or(self.throttle.quiet_hours),
            },
            retry: top.table(faults, retries).map_or(self.retry, |table| retry(faults, table, self.retry)),
            breaker: top.table(faults, breakers).map_or(self.breaker, |table| breaker(faults, table, self.breaker)),
        }
    }
}

fn retry(faults: &mut Faults<'_>, mut table: Table<'_>, default: RetryPolicy) -> RetryPolicy {
    // The retry queues in RabbitMQ wait from one second to one hour.
    let pause = Duration::from_secs(1)..HOUR;
    let attempts = key("attempts", "After so many a delivery is given up").default("8").live();
    let pause_min =
        key("pause-min", "After the first failure; each further wait is four times as long").default("1s").live();
    let pause_max = key("pause-max", "No wait is longer, whatever the plugin asks for").default("1h").live();
    let age_max =
        key("age-max", "A delivery is given up if the next attempt would come later than this after the first")
            .default("24h")
            .live();
    let policy = RetryPolicy {
        attempts_max: number(table.number(faults, attempts, 1..1001), default.attempts_max),
        pause_min: table.duration(faults, pause_min, pause.clone()).unwrap_or(default.pause_min),
        pause_max: table.duration(faults, pause_max, pause).unwrap_or(default.pause_max),
        age_max: table.duration(faults, age_max, Duration::from_secs(1)..365 * DAY).unwrap_or(default.age_max),
    };
    if policy.pause_min > policy.pause_max {
        table.fault(faults, "pause-min is longer than pause-max");
    }
    table.finish(faults);
    policy
}

fn breaker(faults: &mut Faults<'_>, mut table: Table<'_>, default: BreakerPolicy) -> BreakerPolicy {
    let pause = Duration::from_millis(100)..DAY;
    let failures = key("failures-percent", "The breaker opens when this share of the calls failed, in per cent")
        .default("50")
        .live();
    let calls = key("calls", "Of fewer calls it does not judge").default("10").live();
    let window = key("window", "It looks at the calls that ended within this time").default("1m").live();
    let pause_min =
        key("pause-min", "How long the plugin is left alone until a probe; twice as long after each that fails")
            .default("5s")
            .live();
    let pause_max = key("pause-max", "No wait is longer").default("5m").live();
    let policy = BreakerPolicy {
        failures_percent: number(table.number(faults, failures, 1..101), default.failures_percent),
        calls_min: table
            .number(faults, calls, 1..10_001)
            .and_then(|calls| usize::try_from(calls).ok())
            .unwrap_or(default.calls_min),
        window: table.duration(faults, window, Duration::from_secs(1)..DAY).unwrap_or(default.window),
        pause_min: table.duration(faults, pause_min, pause.clone()).unwrap_or(default.pause_min),
        pause_max: table.duration(faults, pause_max, pause).unwrap_or(default.pause_max),
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
