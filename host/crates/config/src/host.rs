//! The host's settings file.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use broker::{BrokerUrl, ExchangeKind, QueueNames, Source};
use event::Rules;
use tracing::level_filters::LevelFilter;

use crate::JournalBounds;
use crate::admin::AdminConfig;
use crate::document::Override;
use crate::mail::{self, MailConfig};
use crate::policies::Policies;
use crate::reader::{self, Faults, Inventory, Privacy, Read, Table, key};
use crate::trace::{self, TracingConfig};

/// The host's settings. Every one has a default.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// `None`: the user's own queue file, see [`BrokerUrl::default_for_user`].
    pub broker: Option<BrokerUrl>,
    /// How long to keep trying if the broker cannot be reached at the start. `None`: for ever.
    pub broker_timeout: Option<Duration>,
    /// The plugin folder.
    pub plugins: PathBuf,
    /// The host's own folder. `None`: the user's own, see [`state::default_for_user`].
    pub state: Option<PathBuf>,
    /// How long a shutdown waits for calls in flight.
    pub drain_timeout: Duration,
    /// Maximum number of unacknowledged messages that the host holds.
    pub prefetch: u16,
    pub log_format: Option<LogFormat>,
    pub log_level: LevelFilter,
    pub source: Source,
    pub rules: Rules,
    /// Defaults for plugins whose own file does not set them.
    pub policies: Policies,
    /// How long an event is remembered, so that a duplicate with its id and source is not delivered. Zero: not at all.
    pub duplicates_window: Duration,
    /// PEM files with certificates of authorities that are trusted besides the system's.
    pub egress_ca: Vec<PathBuf>,
    /// Bounds of the journal. `None`: no journal.
    pub journal: Option<JournalBounds>,
    /// `None`: no plugin can send mail.
    pub mail: Option<MailConfig>,
    pub admin: AdminConfig,
    pub tracing: TracingConfig,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Human,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err(format!("expected \"human\" or \"json\", got {text:?}")),
        }
    }
}

/// The least severe level that is logged.
pub(crate) struct LogLevel(pub LevelFilter);

impl LogLevel {
    const ALL: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = Self::ALL.contains(&text).then(|| text.parse().ok()).flatten();
        level.map(Self).ok_or_else(|| format!("expected one of {}, got {text:?}", Self::ALL.join(", ")))
    }
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            broker: None,
            broker_timeout: None,
            plugins: PathBuf::from("plugins"),
            state: None,
            drain_timeout: Duration::from_secs(25),
            prefetch: 256,
            log_format: None,
            log_level: LevelFilter::INFO,
            source: Source {
                exchange: "orders".to_owned(),
                kind: ExchangeKind::Topic,
                names: QueueNames::new("notifications"),
                bindings: vec!["#".to_owned()],
            },
            rules: Rules::default(),
            policies: Policies::default(),
            duplicates_window: Duration::from_mins(10),
            egress_ca: Vec::new(),
            journal: Some(JournalBounds::default()),
            mail: None,
            admin: AdminConfig::default(),
            tracing: TracingConfig::default(),
        }
    }
}

impl HostConfig {
    /// Returns the host's own folder, if there is any place for it.
    pub fn state_folder(&self) -> Option<PathBuf> {
        self.state.clone().or_else(state::default_for_user)
    }

    /// Returns every key that the file may have.
    pub(super) fn keys() -> Inventory {
        reader::explore(Self::of)
    }

    /// Reads the file's text together with the overrides.
    pub(super) fn read_under(overrides: &[Override], file: &Path, text: &str) -> Read<Self> {
        reader::read_under(overrides, file, text, Self::of)
    }

    #[cfg(test)]
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self, String> {
        let read = Self::read_under(&[], file, text);
        if read.problems.0.is_empty() { Ok(read.value) } else { Err(read.problems.into()) }
    }

    fn of(faults: &mut Faults<'_>, mut top: Table<'_>) -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        const HOUR: Duration = Duration::from_hours(1);
        const DAY: Duration = Duration::from_hours(24);
        let default = Self::default();
        let broker = key("broker", "Where the queues are: amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://… or sqlite:PATH. A list of amqp URLs is the nodes of one cluster")
            .otherwise("A file in your state directory")
            .example("\"amqp://guest:guest@localhost:5672/%2F\"")
            .private(Privacy::Url);
        let broker_timeout = key("broker-timeout", "Gives up if the broker cannot be reached at the start for so long")
            .otherwise("The host tries for ever")
            .example("1m");
        let plugins =
            key("plugins", "The folder of the plugins, NAME.wasm with NAME.toml beside it").default("plugins");
        let state =
            key("state", "The host's own folder: compiled plugins, versions to go back to, its journal and its socket")
                .otherwise("notify-host in your state directory")
                .example("/var/lib/notify-host");
        let drain_timeout = key("drain-timeout", "How long a stop waits for the calls in flight").default("25s").live();
        let prefetch = key("prefetch", "Unacknowledged messages that this host may hold").default("256");
        let log_format = key("log-format", "How log lines look: for people, or one JSON object a line")
            .default("human")
            .choices(&["human", "json"]);
        let log_level =
            key("log-level", "What is logged: this and what is worse").default("info").choices(LogLevel::ALL).live();
        let duplicates = key("duplicates-window", "How long an event is remembered, so that a second one with its id and source is not delivered; 0s switches it off")
            .default("10m")
            .live();
        let config = Self {
            broker: top.one_or_more(faults, broker, BrokerUrl::together),
            broker_timeout: top.duration(faults, broker_timeout, SECOND..DAY),
            plugins: top.path(faults, plugins).unwrap_or(default.plugins),
            state: top.path(faults, state),
            drain_timeout: top
                .duration(faults, drain_timeout, Duration::ZERO..HOUR)
                .unwrap_or(default.drain_timeout),
            prefetch: top
                .number(faults, prefetch, 1..65_536)
                .and_then(|number| u16::try_from(number).ok())
                .unwrap_or(default.prefetch),
            log_format: top.parsed(faults, log_format),
            log_level: top.parsed(faults, log_level).map_or(default.log_level, |LogLevel(level)| level),
            duplicates_window: top
                .duration(faults, duplicates, Duration::ZERO..DAY)
                .unwrap_or(default.duplicates_window),
            source: match top.table(faults, key("source", "What the host consumes. What exists is used as it is")) {
                Some(table) => source(faults, table, default.source),
                None => default.source,
            },
            rules: match top.table(faults, key("decode", "Where plain JSON keeps its attributes, first place first: a property of the message, header:NAME, a pointer into the JSON, exchange or routing-key")) {
                Some(table) => rules(faults, table, default.rules),
                None => default.rules,
            },
            policies: default.policies.read(faults, &mut top),
            egress_ca: match top.table(faults, key("egress", "What plugins send by HTTP")) {
                Some(table) => egress_ca(faults, table),
                None => default.egress_ca,
            },
            journal: match top.table(faults, key("journal", "What `explain` and `events` answer from")) {
                Some(table) => journal(faults, table),
                None => default.journal,
            },
            mail: top
                .table(faults, key("mail", "The relay for plugins that send mail").otherwise("No plugin can send mail"))
                .and_then(|table| mail::read(faults, table)),
            admin: AdminConfig::read(faults, &mut top),
            tracing: match top.table(faults, key("tracing", "Where spans go, by OTLP over HTTP")) {
                Some(table) => trace::read(faults, table),
                None => default.tracing,
            },
        };
        top.finish(faults);
        config
    }
}

fn journal(faults: &mut Faults<'_>, mut table: Table<'_>) -> Option<JournalBounds> {
    const MINUTE: Duration = Duration::from_mins(1);
    const YEAR: Duration = Duration::from_hours(366 * 24);
    const MIB: usize = 1 << 20;
    let default = JournalBounds::default();
    let enabled = key("enabled", "Whether this host keeps a journal").default("true").live();
    let age_max = key("age-max", "What is older is forgotten").default("7d").live();
    let size_max = key("size-max", "How large its file may be; the oldest is forgotten first").default("1 GiB").live();
    let enabled = table.boolean(faults, enabled).unwrap_or(true);
    let bounds = JournalBounds {
        age_max: table.duration(faults, age_max, MINUTE..YEAR).unwrap_or(default.age_max),
        bytes_max: table.bytes(faults, size_max, MIB..1 << 40).map_or(default.bytes_max, |bytes| bytes as u64),
    };
    table.finish(faults);
    enabled.then_some(bounds)
}

fn source(faults: &mut Faults<'_>, mut table: Table<'_>, default: Source) -> Source {
    let exchange = key("exchange", "The exchange that events are published to").default("orders");
    let kind = key("exchange-type", "Of which type the exchange is, if it must be made")
        .default("topic")
        .choices(&["topic", "direct", "fanout"]);
    let queue = key("queue", "The queue; those of the plugins, of waits and of dead letters begin with its name")
        .default("notifications");
    let bindings = key("bindings", "By which routing keys the queue is bound to the exchange, also where both exist")
        .default("[\"#\"]");
    let source = Source {
        exchange: table.parsed(faults, exchange).unwrap_or(default.exchange),
        kind: table.parsed(faults, kind).unwrap_or(default.kind),
        names: table.parsed(faults, queue).map_or(default.names, |queue: String| QueueNames::new(queue)),
        bindings: table.list(faults, bindings).unwrap_or(default.bindings),
    };
    table.finish(faults);
    source
}

fn egress_ca(faults: &mut Faults<'_>, mut table: Table<'_>) -> Vec<PathBuf> {
    let ca = key("ca", "Files with certificates of authorities, in PEM, that plugins' HTTPS and the relay may be vouched for by, besides the system's")
        .default("[]");
    let files = table.paths(faults, ca).unwrap_or_default();
    table.finish(faults);
    files
}

fn rules(faults: &mut Faults<'_>, mut table: Table<'_>, default: Rules) -> Rules {
    let event_type = key("type", "The event's type").default(r#"["type", "/event", "/type", "routing-key"]"#);
    let id =
        key("id", "Its id; without any it is the hash of the body").default(r#"["message_id", "/event_id", "/id"]"#);
    let source = key("source", "Where it comes from").default(r#"["app_id", "exchange"]"#);
    let subject = key("subject", "What it is about").default(r#"["/order_id"]"#);
    let time = key("time", "When it happened").default(r#"["timestamp"]"#);
    let rules = Rules {
        event_type: table.list(faults, event_type).unwrap_or(default.event_type),
        id: table.list(faults, id).unwrap_or(default.id),
        source: table.list(faults, source).unwrap_or(default.source),
        subject: table.list(faults, subject).unwrap_or(default.subject),
        time: table.list(faults, time).unwrap_or(default.time),
    };
    table.finish(faults);
    rules
}

#[cfg(test)]
mod tests {
    use event::Finder;

    use super::*;

    #[test]
    fn a_whole_file() {
        let config = HostConfig::parse(
            Path::new("/etc/notify/host.toml"),
            "broker = \"amqp://localhost\"\nplugins = \"p\"\nprefetch = 10\ndrain-timeout = \"5s\"\nlog-format = \"json\"\n\
             [source]\nexchange = \"shop\"\nexchange-type = \"fanout\"\nqueue = \"q\"\nbindings = [\"order.*\"]\n\
             [decode]\ntype = [\"/kind\", \"routing-key\"]\n",
        )
        .unwrap();
        assert_eq!(config.plugins, Path::new("/etc/notify/p"));
        assert_eq!((config.prefetch, config.drain_timeout), (10, Duration::from_secs(5)));
        assert_eq!((config.source.kind, config.source.names.dead().as_str()), (ExchangeKind::Fanout, "q.dead"));
        assert_eq!(config.rules.event_type, [Finder::Pointer(vec!["kind".to_owned()]), Finder::RoutingKey]);
        assert_eq!(config.log_format, Some(LogFormat::Json));
    }

    #[test]
    fn a_list_of_brokers_is_a_cluster() {
        let config =
            |text| HostConfig::parse(Path::new("host.toml"), text).map(|config| config.broker.unwrap().to_string());
        assert_eq!(config("broker = [\"amqp://a\", \"amqp://b\"]").unwrap(), "amqp://a,amqp://b");
        let error = config("broker = [\"amqp://a\", \"sqlite:b\"]").unwrap_err();
        assert!(error.starts_with("host.toml:1: broker: several URLs"), "{error}");
    }

    #[test]
    fn every_fault_is_reported_with_its_line() {
        let error = HostConfig::parse(
            Path::new("host.toml"),
            "broker = \"redis://x\"\nprefetch = 0\n[sources]\n[decode]\ntype = [\"event\"]\n",
        )
        .unwrap_err();
        let lines: Vec<_> = error.lines().collect();
        assert!(lines[0].starts_with("host.toml:1: broker: broker URL \"redis://x\": unknown scheme"), "{error}");
        assert_eq!(lines[1], "host.toml:2: prefetch: expected 1 to 65535, got 0");
        assert_eq!(lines[2], "host.toml:3: unknown key \"sources\"; did you mean \"source\"?");
        assert!(lines[3].starts_with("host.toml:5: decode.type: \"event\" is no place to look"), "{error}");
    }
}
