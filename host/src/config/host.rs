//! The host's own file.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use broker::{BrokerUrl, ExchangeKind, QueueNames, Source};

use crate::config::admin::{self, AdminConfig};
use crate::config::mail::{self, MailConfig};
use crate::config::policies::Policies;
use crate::config::reader::{self, Faults, Table};
use crate::config::trace::{self, TracingConfig};
use crate::event::Rules;
use crate::journal::Bounds;
use crate::state;

/// The host's settings; every one has a default.
#[derive(Clone, Debug)]
pub(crate) struct HostConfig {
    /// `None`: the user's own file, see [`BrokerUrl::default_for_user`].
    pub(crate) broker: Option<BrokerUrl>,
    /// How long to go on trying when the broker cannot be reached at the start. `None`: for ever.
    pub(crate) broker_timeout: Option<Duration>,
    /// The plugin folder.
    pub(crate) plugins: PathBuf,
    /// The host's own folder. `None`: the user's own, see [`state::default_for_user`].
    pub(crate) state: Option<PathBuf>,
    /// How long a stop waits for what is in flight.
    pub(crate) drain_timeout: Duration,
    /// Unacknowledged messages that the host may hold.
    pub(crate) prefetch: u16,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) source: Source,
    pub(crate) rules: Rules,
    /// For plugins whose own file does not say otherwise.
    pub(crate) policies: Policies,
    /// How long an event is remembered, so that a second one with its id and source is not delivered.
    /// Zero: not at all.
    pub(crate) duplicates_window: Duration,
    /// Files with certificates of authorities that are trusted besides the system's, in PEM.
    pub(crate) egress_ca: Vec<PathBuf>,
    /// What the journal keeps. `None`: there is none.
    pub(crate) journal: Option<Bounds>,
    /// `None`: no plugin can send mail.
    pub(crate) mail: Option<MailConfig>,
    pub(crate) admin: AdminConfig,
    pub(crate) tracing: TracingConfig,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        clap::ValueEnum::from_str(text, false).map_err(|_| format!("expected \"human\" or \"json\", got {text:?}"))
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
            journal: Some(Bounds::default()),
            mail: None,
            admin: AdminConfig::default(),
            tracing: TracingConfig::default(),
        }
    }
}

impl HostConfig {
    /// The host's own folder, if there is any place for it.
    pub(crate) fn state_folder(&self) -> Option<PathBuf> {
        self.state.clone().or_else(state::default_for_user)
    }

    /// Reads the file, which must exist. The error names file and line of every fault.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        match reader::read(file)? {
            Some(text) => Self::parse(file, &text),
            None => Err(format!("there is no file {}", file.display())),
        }
    }

    pub(super) fn parse(file: &Path, text: &str) -> Result<Self, String> {
        const SECOND: Duration = Duration::from_secs(1);
        const HOUR: Duration = Duration::from_hours(1);
        const DAY: Duration = Duration::from_hours(24);
        reader::parse(file, text, |faults, mut top| {
            let default = Self::default();
            // A relative folder is meant from the file, wherever the host is started.
            let beside = |path: String| file.parent().unwrap_or(Path::new("")).join(path);
            let config = Self {
                broker: top.one_or_more(faults, "broker", BrokerUrl::together),
                broker_timeout: top.duration(faults, "broker-timeout", SECOND..DAY),
                plugins: top.parsed(faults, "plugins").map_or(default.plugins, beside),
                state: top.parsed(faults, "state").map(beside),
                drain_timeout: top
                    .duration(faults, "drain-timeout", Duration::ZERO..HOUR)
                    .unwrap_or(default.drain_timeout),
                prefetch: top
                    .number(faults, "prefetch", 1..65_536)
                    .and_then(|number| u16::try_from(number).ok())
                    .unwrap_or(default.prefetch),
                log_format: top.parsed(faults, "log-format"),
                source: match top.table(faults, "source") {
                    Some(table) => source(faults, table, default.source),
                    None => default.source,
                },
                rules: match top.table(faults, "decode") {
                    Some(table) => rules(faults, table, default.rules),
                    None => default.rules,
                },
                policies: default.policies.read(faults, &mut top),
                duplicates_window: top
                    .duration(faults, "duplicates-window", Duration::ZERO..DAY)
                    .unwrap_or(default.duplicates_window),
                egress_ca: match top.table(faults, "egress") {
                    Some(table) => egress_ca(faults, table).into_iter().map(beside).collect(),
                    None => default.egress_ca,
                },
                journal: match top.table(faults, "journal") {
                    Some(table) => journal(faults, table),
                    None => default.journal,
                },
                mail: top.table(faults, "mail").and_then(|table| mail::read(faults, table, file)),
                admin: AdminConfig {
                    listen: top.parsed(faults, "admin").unwrap_or_default(),
                    token_file: top.parsed(faults, "admin-token-file").map(beside),
                    hosts: top.list_of(faults, "admin-hosts", admin::host_name).unwrap_or_default(),
                },
                tracing: match top.table(faults, "tracing") {
                    Some(table) => trace::read(faults, table, file),
                    None => default.tracing,
                },
            };
            top.finish(faults);
            config
        })
    }
}

fn journal(faults: &mut Faults<'_>, mut table: Table<'_>) -> Option<Bounds> {
    const MINUTE: Duration = Duration::from_mins(1);
    const YEAR: Duration = Duration::from_hours(366 * 24);
    const MIB: usize = 1 << 20;
    let default = Bounds::default();
    let enabled = table.boolean(faults, "enabled").unwrap_or(true);
    let bounds = Bounds {
        age_max: table.duration(faults, "age-max", MINUTE..YEAR).unwrap_or(default.age_max),
        bytes_max: table.bytes(faults, "size-max", MIB..1 << 40).map_or(default.bytes_max, |bytes| bytes as u64),
    };
    table.finish(faults);
    enabled.then_some(bounds)
}

fn source(faults: &mut Faults<'_>, mut table: Table<'_>, default: Source) -> Source {
    let source = Source {
        exchange: table.parsed(faults, "exchange").unwrap_or(default.exchange),
        kind: table.parsed(faults, "exchange-type").unwrap_or(default.kind),
        names: table.parsed(faults, "queue").map_or(default.names, |queue: String| QueueNames::new(queue)),
        bindings: table.list(faults, "bindings").unwrap_or(default.bindings),
    };
    table.finish(faults);
    source
}

fn egress_ca(faults: &mut Faults<'_>, mut table: Table<'_>) -> Vec<String> {
    let files = table.list(faults, "ca").unwrap_or_default();
    table.finish(faults);
    files
}

fn rules(faults: &mut Faults<'_>, mut table: Table<'_>, default: Rules) -> Rules {
    let rules = Rules {
        event_type: table.list(faults, "type").unwrap_or(default.event_type),
        id: table.list(faults, "id").unwrap_or(default.id),
        source: table.list(faults, "source").unwrap_or(default.source),
        subject: table.list(faults, "subject").unwrap_or(default.subject),
        time: table.list(faults, "time").unwrap_or(default.time),
    };
    table.finish(faults);
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Finder;

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
