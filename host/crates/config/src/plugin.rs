//! A plugin's settings file, `NAME.toml`.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use event::Filter;
use state::digest::Digest;

use crate::faults::Problems;
use crate::grants::Grants;
use crate::log_policy::LogPolicy;
use crate::policies::Policies;
use crate::reader::{self, Faults, Inventory, Table, Unreadable, key};
use crate::secrets::{self, SecretGrant};
use crate::settings::Settings;
use crate::{INSTANCES_MAX, Limits, MEMORY_BYTES_MAX, Subscription, TABLE_ELEMENTS_MAX};

/// How the operator wants one plugin to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginConfig {
    pub enabled: bool,
    /// The plugin's file, relative to the plugin folder, if it is not `NAME.wasm`.
    pub wasm: Option<PathBuf>,
    /// Digest that the plugin's file must have.
    pub sha256: Option<Digest>,
    /// Replaces the plugin's own subscriptions.
    pub subscriptions: Option<Vec<Subscription>>,
    /// Passes only some of the subscribed events.
    pub filter: Option<Filter>,
    /// Whether log lines are the plugin's work. `None`: as the plugin says.
    pub log: Option<LogPolicy>,
    pub grants: Grants,
    pub secrets: Vec<SecretGrant>,
    pub limits: Limits,
    pub policies: Policies,
    /// The plugin's own settings, `[config]`.
    pub settings: Settings,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            wasm: None,
            sha256: None,
            subscriptions: None,
            filter: None,
            log: None,
            grants: Grants::default(),
            secrets: Vec::new(),
            limits: Limits::default(),
            policies: Policies::default(),
            settings: Settings::default(),
        }
    }
}

impl PluginConfig {
    /// Reads the file; without one, returns the defaults. The error names the file and line of every fault.
    pub fn read(file: &Path, policies: &Policies) -> Result<Self, String> {
        let text = Self::text(file).map_err(|problem| problem.to_string())?;
        Self::of_text(file, text.as_deref(), policies)
    }

    /// Reads the file's text; `None` if there is no such file.
    pub fn text(file: &Path) -> Result<Option<String>, Unreadable> {
        reader::read(file)
    }

    /// Parses the file's text; without one, returns the defaults.
    pub fn of_text(file: &Path, text: Option<&str>, policies: &Policies) -> Result<Self, String> {
        match text {
            Some(text) => Self::parse(file, text, policies),
            None => Ok(Self {
                policies: policies.clone(),
                settings: Settings { file: file.to_owned(), ..Settings::default() },
                ..Self::default()
            }),
        }
    }

    fn parse(file: &Path, text: &str, policies: &Policies) -> Result<Self, String> {
        Ok(Self::faults_or(file, text, policies)?)
    }

    /// Parses the file's text, or returns every fault in it.
    pub fn faults_or(file: &Path, text: &str, policies: &Policies) -> Result<Self, Problems> {
        reader::parse(file, text, |faults, top| Self::of(faults, top, file, policies))
    }

    /// Returns every key that the file may have.
    pub(super) fn keys() -> Inventory {
        reader::explore(|faults, top| Self::of(faults, top, Path::new(""), &Policies::default()))
    }

    fn of(faults: &mut Faults<'_>, mut top: Table<'_>, file: &Path, policies: &Policies) -> Self {
        let enabled = key("enabled", "Whether it runs; if not, events pass it by").default("true");
        let wasm = key("wasm", "Another file in the folder than NAME.wasm: one file may serve under several names")
            .example("email.wasm");
        let sha256 = key("sha256", "What the file must be, as `sha256sum` says; any other is refused");
        let subscriptions = key("subscriptions", "Which events it gets, instead of what it asks for itself");
        let filter = key("filter", "A condition in CEL: of the events that are subscribed to, only those that match")
            .example("data.total > 100");
        let log = key(
            "log",
            "What becomes of an attempt whose log lines cannot be written: it is made again, or they are missing",
        )
        .choices(&LogPolicy::WORDS)
        .otherwise("best-effort, unless the plugin says of itself that its lines are its work, as the logger does");
        let grants = key("grants", "What it may reach; nothing by default");
        let limits_key = key("limits", "What one call may use");
        let config = key("config", "Its own settings, as it describes them");
        let mut grants = top.table(faults, grants).map(|table| Grants::read(faults, table)).unwrap_or_default();
        let secrets = secrets::read(faults, &mut top, &grants);
        grants.add_secrets(secrets.iter().map(|secret| secret.name.as_str()));
        let config = Self {
            enabled: top.boolean(faults, enabled).unwrap_or(true),
            wasm: top.parsed(faults, wasm).map(|WasmPath(path)| path),
            sha256: top.parsed(faults, sha256),
            subscriptions: top
                .tables(faults, subscriptions)
                .map(|tables| tables.into_iter().filter_map(|table| subscription(faults, table)).collect()),
            filter: top.expression(faults, filter, |text| Filter::new(text).map_err(|error| (error.at, error.problem))),
            log: top.parsed(faults, log),
            grants,
            secrets,
            limits: top.table(faults, limits_key).map(|table| limits(faults, table)).unwrap_or_default(),
            policies: policies.clone().read(faults, &mut top),
            settings: Settings {
                lines: top.lines(faults, "config"),
                file: file.to_owned(),
                values: top.json(faults, config).unwrap_or_default(),
            },
        };
        top.finish(faults);
        config
    }
}

/// Path of a file in or below the plugin folder. Files elsewhere are not watched.
pub struct WasmPath(pub PathBuf);

impl FromStr for WasmPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let is_within = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let is_wasm = path.extension().is_some_and(|extension| extension == "wasm");
        if is_within && is_wasm {
            return Ok(Self(path));
        }
        Err(format!("expected a .wasm file in the plugin folder or below it, such as \"email.wasm\", got {text:?}"))
    }
}

/// A pattern that can match something.
struct Pattern(String);

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty, and matches nothing; \"#\" stands for everything".to_owned());
        }
        let is_odd = |word: &&str| word.len() > 1 && word.contains(['*', '#']);
        match text.split('.').find(is_odd) {
            Some(word) => Err(format!(
                "{word:?} matches only itself: between dots, \"*\" stands for a whole word and \"#\" for any number of them"
            )),
            None => Ok(Self(text.to_owned())),
        }
    }
}

fn subscription(faults: &mut Faults<'_>, mut table: Table<'_>) -> Option<Subscription> {
    let event_type =
        key("event-type", "A pattern of the event's type: between dots, * is one word and # any number of them")
            .required()
            .example("order.*");
    let source = key("source", "A pattern of its source").otherwise("Any").example("shop");
    let subject = key("subject", "A pattern of its subject").otherwise("Any").example("4711");
    let event_type = table.parsed(faults, event_type).map(|Pattern(pattern)| pattern);
    let source = table.parsed(faults, source).map(|Pattern(pattern)| pattern);
    let subject = table.parsed(faults, subject).map(|Pattern(pattern)| pattern);
    if !table.has("event-type") {
        table.fault(faults, "event-type is missing; \"#\" stands for every type");
    }
    table.finish(faults);
    Some(Subscription { event_type: event_type?, source, subject })
}

fn limits(faults: &mut Faults<'_>, mut table: Table<'_>) -> Limits {
    let default = Limits::default();
    let number =
        |number: Option<u64>, default| number.and_then(|number| usize::try_from(number).ok()).unwrap_or(default);
    let memory = key("memory", "Memory of one call").default("64 MiB");
    let time = key("time", "Time of one call, waiting included").default("10s");
    let concurrency = key("concurrency", "Calls at once, a quarter of them for what waits in its queue").default("16");
    let log_lines = key("log-lines", "Log lines of one call").default("1000");
    let log_bytes = key("log-bytes", "Log bytes of one call").default("1 MiB");
    let tables = key("table-elements", "Elements of one table: each function that is called through a pointer is one")
        .default("20000");
    let instances = key("instances", "Core modules that one call may instantiate").default("32");
    let handles = key("handles", "Resources of the host's that one call may hold").default("1024");
    let host_call =
        key("host-call-bytes", "Bytes that one call of the host, or the answer, may copy out of the plugin")
            .default("16 MiB");
    let response = key("response", "Bytes of a response's body that one HTTP exchange hands over").default("1 MiB");
    let result = key("result-bytes", "Bytes that are kept of each text of an answer").default("4 KiB");
    let limits = Limits {
        memory_bytes: table.bytes(faults, memory, 1 << 20..MEMORY_BYTES_MAX + 1).unwrap_or(default.memory_bytes),
        time: table.duration(faults, time, Duration::from_millis(1)..Duration::from_mins(5)).unwrap_or(default.time),
        concurrency: number(table.number(faults, concurrency, 1..65), default.concurrency),
        log_lines: number(table.number(faults, log_lines, 0..1_000_001), default.log_lines),
        log_bytes: table.bytes(faults, log_bytes, 0..(64 << 20) + 1).unwrap_or(default.log_bytes),
        table_elements: number(table.number(faults, tables, 0..TABLE_ELEMENTS_MAX as u64 + 1), default.table_elements),
        instances: number(table.number(faults, instances, 1..INSTANCES_MAX as u64 + 1), default.instances),
        handles: number(table.number(faults, handles, 1..100_001), default.handles),
        host_call_bytes: table.bytes(faults, host_call, 64 << 10..(64 << 20) + 1).unwrap_or(default.host_call_bytes),
        response_bytes: table.bytes(faults, response, 1 << 10..(16 << 20) + 1).unwrap_or(default.response_bytes),
        result_bytes: table.bytes(faults, result, 256..(64 << 10) + 1).unwrap_or(default.result_bytes),
    };
    table.finish(faults);
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostConfig;
    use crate::policies::ThrottlePolicy;
    use crate::rate::Rate;

    fn parse(text: &str) -> Result<PluginConfig, String> {
        PluginConfig::parse(Path::new("plugins/email.toml"), text, &Policies::default())
    }

    #[test]
    fn a_whole_file() {
        let config = parse(
            "enabled = false\n[[subscriptions]]\nevent-type = \"order.*\"\n[limits]\nmemory = \"16 MiB\"\ntime = \"1m 30s\"\n\
             [retry]\nattempts = 3\n[breaker]\nwindow = \"10s\"\n[config]\nrecipients = [\"a@example.com\"]\n",
        )
        .unwrap();
        assert!(!config.enabled);
        assert_eq!(config.subscriptions.unwrap()[0].event_type, "order.*");
        assert_eq!((config.limits.memory_bytes, config.limits.time), (16 << 20, Duration::from_secs(90)));
        let retry = config.policies.retry;
        assert_eq!((retry.attempts_max, retry.pause_max), (3, Duration::from_hours(1)), "what is not said stays");
        assert_eq!(config.policies.breaker.window, Duration::from_secs(10));
        let values = serde_json::Value::from(config.settings.values.clone());
        assert_eq!(values, serde_json::json!({"recipients": ["a@example.com"]}));
        let nothing = parse("").unwrap();
        assert_eq!(PluginConfig { settings: Settings::default(), ..nothing }, PluginConfig::default());
    }

    #[test]
    fn the_examples_on_pacing_load() {
        let document = include_str!("../../../../docs/pacing.md");
        let blocks: Vec<_> = document.split("```").skip(1).step_by(2).collect();
        for block in &blocks {
            let (kind, text) = block.split_once('\n').unwrap();
            match kind {
                "toml" => drop(parse(text).unwrap()),
                "toml host" => drop(HostConfig::parse(Path::new("host.toml"), text).unwrap()),
                other => panic!("nobody knows what to do with a block of the kind {other:?}"),
            }
        }
        assert_eq!(blocks.len(), 8);
    }

    #[test]
    fn pacing_is_the_hosts_unless_the_plugin_says_otherwise() {
        let host = "rate = \"10/s\"\nquiet-hours = \"sat,sun UTC\"";
        let host = HostConfig::parse(Path::new("host.toml"), host).unwrap().policies;
        let throttle = |text| PluginConfig::parse(Path::new("email.toml"), text, &host).unwrap().policies.throttle;
        assert_eq!(throttle(""), host.throttle);
        let own = throttle("rate = { limit = \"5/min\", burst = 3 }");
        assert_eq!(
            (own.rate, &own.quiet_hours),
            (Some("5/min".parse::<Rate>().unwrap().with_burst(3)), &host.throttle.quiet_hours)
        );
        assert_eq!(throttle("rate = \"unlimited\"\nquiet-hours = []"), ThrottlePolicy::default());
        for (text, expected) in [
            ("rate = 5", "email.toml:1: rate: expected a text in quotes, got a number"),
            ("# it\nrate = \"5\"", "email.toml:2: rate: expected calls in a unit of time such as \"30/min\""),
            ("[rate]\nburst = 0", "email.toml:2: rate: limit is missing"),
            ("[rate]\nlimit = \"1/s\"\nbusrt = 2", "email.toml:3: unknown key \"rate.busrt\"; did you mean \"burst\"?"),
            ("quiet-hours = \"22:00-07:00\"", "email.toml:1: quiet-hours: it does not say in which time zone"),
        ] {
            let error = PluginConfig::parse(Path::new("email.toml"), text, &host).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn each_setting_knows_its_line() {
        let config = parse(
            "enabled = true\n[config]\nrecipients = [\n  \"a\",\n  \"b\",\n]\n[config.smtp]\nport = 25\n[[config.rules]]\n\"a/b\" = 1\n",
        );
        let settings = config.unwrap().settings;
        for (pointer, line) in [
            ("", 2),
            ("/recipients", 3),
            ("/recipients/1", 5),
            ("/recipients/7", 3),
            ("/smtp", 7),
            ("/smtp/port", 8),
            ("/smtp/user/name", 7),
            ("/rules/0/a~1b", 10),
            ("/other", 2),
        ] {
            assert_eq!(settings.place(pointer), format!("plugins/email.toml:{line}"), "{pointer}");
        }
        assert_eq!(parse("").unwrap().settings.place("/other"), "plugins/email.toml");
    }

    #[test]
    fn a_fault_in_a_filter_is_told_by_line_and_column() {
        for (text, expected) in [
            ("filter = 'data.total >'", "plugins/email.toml:1:23: filter: Syntax error"),
            ("# it\nfilter = \"total > 1\"", "plugins/email.toml:2:11: filter: there is no \"total\""),
            (
                "filter = \"\"\"\ndata.a == 1 &&\n  totel > 1\"\"\"",
                "plugins/email.toml:3:3: filter: there is no \"totel\"",
            ),
            // With escapes the column in the file differs, so only the line is told.
            ("filter = \"\\\"a\\\" == b\"", "plugins/email.toml:1: filter: there is no \"b\""),
            ("filter = 5", "plugins/email.toml:1: filter: expected a text in quotes, got a number"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let config = parse("filter = 'data.total > 100'\n[grants]\nhttp = [\"https://a.example\"]").unwrap();
        assert_eq!(config.filter.unwrap().text(), "data.total > 100");
        let error = parse("[grants]\nhttp = [\"a.example\"]\nsmtp = []").unwrap_err();
        assert!(error.starts_with("plugins/email.toml:2: grants.http: expected scheme, host and"), "{error}");
        assert!(error.contains("plugins/email.toml:3: unknown key \"grants.smtp\"; expected one of http"), "{error}");
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused() {
        let check = |pattern: &str, fault: &str| {
            let error = parse(&format!("[[subscriptions]]\nevent-type = {pattern:?}\n")).unwrap_err();
            assert!(
                error.starts_with("plugins/email.toml:2: subscriptions.event-type: ") && error.contains(fault),
                "{error}"
            );
        };
        check("", "it is empty");
        check("Order*", "\"Order*\" matches only itself");
        check("order.#x", "\"#x\" matches only itself");
        for good in ["#", "*", "order.*", "order.#", "OrderCreated", "com.example.order.created"] {
            parse(&format!("[[subscriptions]]\nevent-type = {good:?}\n")).unwrap();
        }
    }

    #[test]
    fn every_fault_is_reported_with_its_line() {
        let error = parse(
            "enable = true\n[limits]\nmemory = \"0 B\"\ntime = 5\nconcurrency = 1000\n[[subscriptions]]\nsource = \"x\"\n",
        )
        .unwrap_err();
        assert_eq!(
            error.lines().collect::<Vec<_>>(),
            [
                "plugins/email.toml:1: unknown key \"enable\"; did you mean \"enabled\"?",
                "plugins/email.toml:3: limits.memory: expected 1.0 MiB to 256.0 MiB, got 0 B",
                "plugins/email.toml:4: limits.time: expected a text in quotes, got a number",
                "plugins/email.toml:5: limits.concurrency: expected 1 to 64, got 1000",
                "plugins/email.toml:7: subscriptions: event-type is missing; \"#\" stands for every type",
            ]
        );
        assert!(parse("a = ").unwrap_err().starts_with("plugins/email.toml:1: "));
    }

    #[test]
    fn the_limits_are_documented_as_they_are() {
        let document = include_str!("../../../../docs/sandbox.md");
        let section = document.split("\n## ").find(|section| section.starts_with("Limits")).unwrap();
        let rows: Vec<Vec<_>> = section
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
            .collect();
        let all = |column: usize| {
            let lines: Vec<_> = rows.iter().map(|row| format!("{} = {}", row[1], row[column])).collect();
            format!("[limits]\n{}\n", lines.join("\n"))
        };
        assert_eq!(parse(&all(2)).unwrap().limits, Limits::default());
        for row in &rows {
            for bound in row[3].split(" to ") {
                let value = if bound.parse::<u64>().is_ok() { bound.to_owned() } else { format!("{bound:?}") };
                parse(&format!("[limits]\n{} = {value}\n", row[1])).unwrap();
            }
        }
        // Every limit has a row in the document.
        let unknown = parse("[limits]\nx = 1\n").unwrap_err();
        assert!(unknown.contains("unknown key"), "{unknown}");
        assert_eq!(rows.len(), 11);
    }
}
