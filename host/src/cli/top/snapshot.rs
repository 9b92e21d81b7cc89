//! A snapshot of what a host reports, as `top` shows it.
//!
//! Fields that are absent in an answer are shown as absent, because the host may have another version.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use event::text::shown;
use serde::Deserialize;
use serde_json::{Value, json};

/// The answers of one poll.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    /// URL of the host.
    pub(super) url: String,
    pub(super) host: Host,
    pub(super) samples: Vec<StatsSample>,
    pub(super) plugins: Vec<Plugin>,
    /// Recent events, newest first.
    pub(super) events: Vec<Event>,
    /// Why there are no events.
    pub(super) no_events: Option<String>,
    /// Why the last poll failed. The other fields are then from the poll before.
    pub(super) problem: Option<String>,
    /// The raw answers, for scripts.
    raw: Raw,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Raw {
    host: Value,
    samples: Value,
    plugins: Value,
    events: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Host {
    pub(super) version: String,
    pub(super) process: u64,
    pub(super) broker: Broker,
    pub(super) source: SourceQueue,
    pub(super) ready: bool,
    pub(super) reasons: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Broker {
    pub(super) url: String,
    pub(super) connected: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct SourceQueue {
    pub(super) exchange: String,
    pub(super) queue: String,
}

/// Statistics of one second.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct StatsSample {
    pub(super) received: u64,
    pub(super) failed: u64,
    pub(super) dead: u64,
    pub(super) p50_micros: Option<u64>,
    pub(super) p99_micros: Option<u64>,
    pub(super) in_flight: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Plugin {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) in_flight: u64,
    pub(super) problem: Option<String>,
    pub(super) last_failure: Option<String>,
    pub(super) queue: Queue,
    pub(super) counts: Counts,
    pub(super) p50_micros: Option<u64>,
    pub(super) p99_micros: Option<u64>,
    /// Attempts per second since the poll before.
    #[serde(skip)]
    pub(super) rate: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Queue {
    pub(super) messages: Option<u64>,
    pub(super) oldest_age_seconds: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    done: u64,
    skipped: u64,
    retry: u64,
    reject: u64,
    misconfigured: u64,
    pub(super) dead: u64,
}

impl Counts {
    fn attempts(&self) -> u64 {
        self.done + self.skipped + self.retry + self.reject + self.misconfigured
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    at: String,
    id: String,
    #[serde(rename = "type")]
    kind: String,
    subject: Option<String>,
    what: String,
    plugin: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
    given_up: Option<String>,
}

impl Event {
    /// Formats the event on one line.
    pub(super) fn line(&self) -> String {
        let about = self.subject.as_ref().unwrap_or(&self.id);
        let what = self.outcome.as_ref().unwrap_or(&self.what);
        // Leave the date out: recent events are of today.
        let time = self.at.split_once('T').map_or(self.at.as_str(), |(_, time)| time).trim_end_matches('Z');
        let plugin = self.plugin.as_ref().map(|plugin| format!("{plugin}: ")).unwrap_or_default();
        let given_up = self.given_up.as_ref().map(|why| format!(", dead-lettered ({why})")).unwrap_or_default();
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        shown(&format!("{time}  {} {about}  {plugin}{what}{given_up}{reason}", self.kind))
    }

    pub(super) fn is_trouble(&self) -> bool {
        self.given_up.is_some() || matches!(self.outcome.as_deref(), Some("retry" | "reject" | "misconfigured"))
    }
}

impl Plugin {
    /// Returns the problem that the operator should know of, if any.
    pub(super) fn trouble(&self) -> Option<String> {
        let problem = self.problem.as_ref().map(|problem| format!("does not load: {problem}"));
        problem.or_else(|| self.last_failure.clone()).map(|text| shown(&text))
    }
}

impl Snapshot {
    /// Combines the four answers. The error says which of them makes no sense.
    pub(super) fn of(url: &str, [host, stats, plugins, events]: [Value; 4]) -> Result<Self, String> {
        let samples = stats["samples"].clone();
        let (plugins, events) = (plugins["plugins"].clone(), events["events"].clone());
        let snapshot = Self {
            url: url.to_owned(),
            host: read("host", &host)?,
            samples: read("stats", &samples)?,
            plugins: read("plugins", &plugins)?,
            events: read("events", &events)?,
            no_events: None,
            problem: None,
            raw: Raw { host, samples, plugins, events },
        };
        Ok(snapshot)
    }

    /// Returns the host's answers in one object, for scripts.
    pub(super) fn to_json(&self) -> Value {
        let mut plugins = self.raw.plugins.clone();
        for (json, plugin) in plugins.as_array_mut().into_iter().flatten().zip(&self.plugins) {
            json["attempts_per_second"] = json!(plugin.rate);
        }
        let Raw { host, samples, events, .. } = &self.raw;
        json!({ "host": host, "plugins": plugins, "samples": samples, "events": events })
    }

    /// Returns the last complete second.
    pub(super) fn now(&self) -> StatsSample {
        self.samples.last().cloned().unwrap_or_default()
    }
}

fn read<T: for<'de> Deserialize<'de>>(what: &str, answer: &Value) -> Result<T, String> {
    T::deserialize(answer).map_err(|error| format!("its answer about {what} makes no sense: {error}"))
}

/// Counters at the poll before, for rates.
#[derive(Debug, Default)]
pub(super) struct Before {
    at: Option<Instant>,
    attempts: HashMap<String, u64>,
}

impl Before {
    /// Fills in the rates of a snapshot taken at `at`.
    pub(super) fn rate(&mut self, snapshot: &mut Snapshot, at: Instant) {
        let passed = self.at.map(|before| at.saturating_duration_since(before));
        for plugin in &mut snapshot.plugins {
            let attempts = plugin.counts.attempts();
            let before = self.attempts.insert(plugin.name.clone(), attempts);
            plugin.rate = before.zip(passed).and_then(|(before, passed)| per_second(before, attempts, passed));
        }
        self.attempts.retain(|name, _| snapshot.plugins.iter().any(|plugin| plugin.name == *name));
        self.at = Some(at);
    }
}

/// Returns the rate; `None` if the counter was reset in between, as by a restart.
fn per_second(before: u64, after: u64, passed: Duration) -> Option<f64> {
    let more = u32::try_from(after.checked_sub(before)?).ok()?;
    (!passed.is_zero()).then(|| f64::from(more) / passed.as_secs_f64())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::top) fn sample() -> Snapshot {
        let host = json!({
            "version": "0.6.0", "process": 4711, "ready": true, "reasons": [],
            "broker": { "url": "amqp://notify@mq1/%2F", "connected": true, "since": "2026-11-27T08:00:00.000Z" },
            "source": { "exchange": "orders", "queue": "notifications" },
        });
        let samples: Vec<_> = (0..60)
            .map(|second| json!({ "received": second, "done": second, "p50_micros": 410, "p99_micros": 12_300, "in_flight": 3 }))
            .collect();
        let plugins = json!({ "plugins": [
            { "name": "email", "state": "failing", "in_flight": 0, "last_failure": "the relay\u{1b}[2J is away",
              "queue": { "messages": 240, "oldest_age_seconds": 95.0 }, "counts": { "done": 10, "retry": 20, "dead": 2 },
              "p50_micros": 48_000, "p99_micros": 1_310_000 },
            { "name": "logger", "state": "running", "in_flight": 2, "queue": { "messages": 0, "oldest_age_seconds": null },
              "counts": { "done": 100 }, "p50_micros": 180, "p99_micros": 2400 },
            { "name": "slack", "state": "broken", "problem": "it is no component" },
        ] });
        let events = json!({ "events": [
            { "at": "2026-11-27T08:01:00.250Z", "id": "e2", "type": "OrderPaid", "subject": "4711", "what": "attempted",
              "plugin": "email", "outcome": "retry", "reason": "the relay is away" },
            { "at": "2026-11-27T08:00:59.000Z", "id": "e1", "type": "OrderCreated", "what": "received" },
        ] });
        Snapshot::of("http://127.0.0.1:9471", [host, json!({ "samples": samples }), plugins, events]).unwrap()
    }

    #[test]
    fn rates_come_from_two_looks_and_not_across_a_restart() {
        let (mut before, begun) = (Before::default(), Instant::now());
        let mut look = |done: u64, seconds: u64| {
            let mut snapshot = sample();
            snapshot.plugins[1].counts.done = done;
            before.rate(&mut snapshot, begun + Duration::from_secs(seconds));
            snapshot.plugins[1].rate
        };
        assert_eq!(look(100, 0), None);
        assert_eq!(look(150, 2), Some(25.0));
        assert_eq!(look(0, 3), None);
        assert_eq!(look(7, 4), Some(7.0));
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_named() {
        let no = Snapshot::of("u", [json!({}), json!({ "samples": 5 }), json!({}), json!({})]).unwrap_err();
        assert!(no.starts_with("its answer about stats makes no sense: "), "{no}");
    }

    #[test]
    fn an_event_is_a_line_that_drives_no_terminal() {
        let mut event = sample().events.remove(0);
        assert_eq!(event.line(), "08:01:00.250 OrderPaid 4711 email: retry: the relay is away");
        event.reason = Some("a\u{1b}[2J\nb".to_owned());
        assert!(event.line().ends_with("retry: a\\u{1b}[2J b"), "{}", event.line());
    }
}
