//! The layers of the host's settings: flags override environment variables, which override the file, which overrides
//! the defaults.
//!
//! Each key that holds a single value has a variable: `NOTIFY_` and the path in upper case, so `journal.age-max` is
//! `NOTIFY_JOURNAL_AGE_MAX`. An empty variable counts as not set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::HostConfig;
use crate::document::{Document, Override};
use crate::faults::{ConfigFault, Problems};
use crate::key::{Inventory, KeyEntry};
use crate::reader;

const PREFIX: &str = "NOTIFY_";
/// Prefix of OpenTelemetry's standard variables.
const STANDARD_PREFIX: &str = "OTEL_";
/// Variables with our prefix that belong to no key of the file. This program, order-cli or systemd reads them.
const OTHERS: [&str; 5] =
    ["NOTIFY_ADMIN_TOKEN", "NOTIFY_ADMIN_URL", "NOTIFY_CONFIG", "NOTIFY_EXCHANGE", "NOTIFY_SOCKET"];
/// Prefix of variables that the tests use.
const TESTS: &str = "NOTIFY_TEST_";
/// Path of the file that a system package installs.
const OF_THE_MACHINE: &str = "/etc/notify-host/notify-host.toml";

/// Everything that determines the host's settings. It can be resolved again when the file may have changed.
#[derive(Clone, Default)]
pub struct Layers {
    /// The file that `--config` names.
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    /// Path of the key, name of the flag, value.
    flags: Vec<(&'static str, &'static str, String)>,
}

/// The host's settings, and where each of them comes from.
#[derive(Clone)]
pub struct Resolved {
    pub config: HostConfig,
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// Warnings about variables that nothing reads and that look like a misspelt one.
    pub warnings: Vec<String>,
    pub(super) asked: Inventory,
    pub(super) sources: Sources,
}

/// The settings as far as they can be read, with all problems.
pub struct Looked {
    /// The settings; where there are problems, the defaults.
    pub config: HostConfig,
    pub file: Option<PathBuf>,
    pub problems: Problems,
    pub warnings: Vec<String>,
    asked: Inventory,
    sources: Sources,
}

/// The texts that the settings were read from.
#[derive(Clone)]
pub(super) struct Sources {
    file: PathBuf,
    text: String,
    overrides: Vec<Override>,
}

impl Sources {
    pub(super) fn document(&self) -> Document<'_> {
        Document::new(&self.file, &self.text, &self.overrides)
    }
}

impl Layers {
    /// Captures the environment of this process. `file` is the one that was named on the command line.
    pub fn of_process(file: Option<&Path>) -> Self {
        let is_ours = |name: &str| name.starts_with(PREFIX) || name.starts_with(STANDARD_PREFIX);
        let environment = std::env::vars_os().filter(|(name, _)| is_ours(&name.to_string_lossy())).collect();
        Self { file: file.map(Path::to_owned), environment, flags: Vec::new() }
    }

    /// Adds a flag's value for a key, if the flag was given.
    pub fn flag(&mut self, path: &'static str, flag: &'static str, value: Option<impl ToString>) {
        self.flags.extend(value.map(|value| (path, flag, value.to_string())));
    }

    /// Reads the file and merges all layers. The error holds every fault.
    pub fn resolve(&self) -> Result<Resolved, Problems> {
        let Looked { config, file, problems, warnings, asked, sources } = self.look();
        if !problems.0.is_empty() {
            return Err(problems);
        }
        Ok(Resolved { config, file, warnings, asked, sources })
    }

    /// Like [`Self::resolve`], but returns what can be read together with the problems.
    pub fn look(&self) -> Looked {
        let known = HostConfig::keys();
        let (overrides, mut faults) = self.overrides(&known);
        let (file, text) = self.text().unwrap_or_else(|fault| {
            faults.push(*fault);
            (None, String::new())
        });
        let path = file.clone().unwrap_or_default();
        let mut read = HostConfig::read_under(&overrides, &path, &text);
        // An overridden value of the file is still checked.
        let own = HostConfig::read_under(&[], &path, &text);
        for fault in own.problems.0.into_iter().chain(read.problems.0) {
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        let standard =
            |wanted: &str| self.environment.iter().find(|(name, _)| name == wanted)?.1.to_str().map(str::to_owned);
        if let Err(problem) = read.value.tracing.resolve(standard) {
            let (name, problem) = problem.split_once(": ").unwrap_or(("", &problem));
            faults.push(ConfigFault::of_override(name.to_owned(), problem.to_owned()));
        }
        Looked {
            config: read.value,
            file,
            problems: Problems(faults),
            warnings: self.warnings(&known),
            asked: read.asked,
            sources: Sources { file: path, text, overrides },
        }
    }

    /// Reads the file and returns its path and text.
    fn text(&self) -> Result<(Option<PathBuf>, String), Box<ConfigFault>> {
        let fault = |file: &Path, problem| Box::new(ConfigFault::of_file(file.to_owned(), problem));
        if let Some(file) = &self.file {
            let text = reader::read(file).map_err(|problem| fault(file, problem.to_string()))?;
            let text = text.ok_or_else(|| fault(file, format!("there is no file {}", file.display())))?;
            return Ok((Some(file.clone()), text));
        }
        for file in default_files() {
            if let Some(text) = reader::read(&file).map_err(|problem| fault(&file, problem.to_string()))? {
                return Ok((Some(file), text));
            }
        }
        Ok((None, String::new()))
    }

    /// Collects the overrides from flags and variables.
    fn overrides(&self, known: &Inventory) -> (Vec<Override>, Vec<ConfigFault>) {
        let (mut overrides, mut faults) = (BTreeMap::new(), Vec::new());
        for asked in known.values() {
            let (path, name) = (asked.path(), asked.variable());
            let Some((_, value)) = self.environment.iter().find(|(other, _)| *other == *name) else { continue };
            match value.to_str() {
                Some("") => {}
                Some(value) => {
                    let value = asked.kind.toml_of_text(value);
                    overrides.insert(path.clone(), Override { path, value, name });
                }
                None => faults.push(ConfigFault::of_override(name, format!("{path}: it is not UTF-8"))),
            }
        }
        for (path, flag, value) in &self.flags {
            let kind = known.get(path).map(|asked| &asked.kind);
            let value = kind.map_or_else(String::new, |kind| kind.toml_of_text(value));
            let path = (*path).to_owned();
            overrides.insert(path.clone(), Override { path, value, name: (*flag).to_owned() });
        }
        (overrides.into_values().collect(), faults)
    }

    fn warnings(&self, known: &Inventory) -> Vec<String> {
        let known: Vec<_> = known.values().map(KeyEntry::variable).chain(OTHERS.map(str::to_owned)).collect();
        let names = self.environment.iter().map(|(name, _)| name.to_string_lossy());
        let warn = |name: &str| {
            let meant = meant(name, &known)?;
            Some(format!("the environment has {name}, which nothing reads; did you mean {meant}?"))
        };
        names.filter(|name| !name.starts_with(TESTS)).filter_map(|name| warn(&name)).collect()
    }
}

/// Returns where the file is looked for when none is named: the user's own first, then the machine's.
pub fn default_files() -> Vec<PathBuf> {
    use etcetera::BaseStrategy as _;
    let own = etcetera::choose_base_strategy().ok();
    let own = own.map(|directories| directories.config_dir().join("notify-host").join("notify-host.toml"));
    own.into_iter().chain([PathBuf::from(OF_THE_MACHINE)]).collect()
}

/// Suggests the variable that an unread one may have meant. Other software may use the prefix as well: Kubernetes does
/// for a service called `notify`.
fn meant<'k>(name: &str, known: &'k [String]) -> Option<&'k str> {
    if known.iter().any(|other| other == name) {
        return None;
    }
    let own = name.strip_prefix(PREFIX)?;
    let differences = |other: &str| strsim::damerau_levenshtein(own, other.strip_prefix(PREFIX).unwrap_or(other));
    let near = known.iter().min_by_key(|other| differences(other))?;
    if differences(near) <= (own.len() / 4).max(1) {
        return Some(near);
    }
    // The table's name may be missing: `NOTIFY_RELAY`.
    let mut longer = known.iter().filter(|other| other.ends_with(&format!("_{own}")));
    longer.next().filter(|_| longer.next().is_none()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    fn layers(file: &str, environment: &[(&str, &str)]) -> (tempfile::TempDir, Layers) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.toml");
        fs::write(&path, file).unwrap();
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        (folder, Layers { file: Some(path), environment, flags: Vec::new() })
    }

    #[test]
    fn flags_over_environment_over_file_over_defaults() {
        let (folder, mut layers) = layers(
            "prefetch = 1\nplugins = \"p\"\ndrain-timeout = \"1s\"\nrate = { limit = \"1/s\", burst = 5 }\n\
             [journal]\nage-max = \"1d\"\n[egress]\nca = [\"a\"]\n",
            &[
                ("NOTIFY_PREFETCH", "2"),
                ("NOTIFY_DRAIN_TIMEOUT", "2s"),
                ("NOTIFY_JOURNAL_SIZE_MAX", "2 MiB"),
                ("NOTIFY_JOURNAL_ENABLED", "true"),
                ("NOTIFY_EGRESS_CA", "b, c"),
                ("NOTIFY_RATE", "2/s"),
                ("NOTIFY_BROKER", "amqp://a:pw@x,amqp://b"),
                ("NOTIFY_STATE", ""),
                ("NOTIFY_SOURCE_BINDINGS", "order.*,shop.#"),
            ],
        );
        layers.flag("drain-timeout", "--drain-timeout", Some("3s"));
        layers.flag("plugins", "--plugins", None::<String>);
        let config = layers.resolve().map_err(String::from).unwrap().config;
        assert_eq!((config.prefetch, config.drain_timeout), (2, Duration::from_secs(3)));
        assert_eq!(config.plugins, folder.path().join("p"), "from the file");
        assert_eq!(config.egress_ca, [Path::new("b"), Path::new("c")], "from where the host is");
        let journal = config.journal.unwrap();
        assert_eq!((journal.age_max, journal.bytes_max), (Duration::from_hours(24), 2 << 20));
        assert_eq!(config.policies.throttle.rate.unwrap().to_string(), "2/s");
        assert_eq!(config.broker.unwrap().to_string(), "amqp://a:***@x,amqp://b");
        assert_eq!((config.source.bindings, config.state), (vec!["order.*".to_owned(), "shop.#".to_owned()], None));
    }

    #[test]
    fn faults_of_every_layer_are_told_at_once() {
        let (folder, mut layers) = layers(
            "prefetch = 0\n[journal]\nenabled = 5\n",
            &[
                ("NOTIFY_PREFETCH", "many"),
                ("NOTIFY_BROKER", "redis://u:hunter2@x"),
                ("NOTIFY_RETRY_PAUSE_MIN", "1h\nx"),
            ],
        );
        layers.flag("drain-timeout", "--drain-timeout", Some("2h"));
        let told = String::from(layers.resolve().err().unwrap());
        let told = told.replace(&format!("{}/", folder.path().display()), "");
        assert_eq!(
            told.lines().collect::<Vec<_>>(),
            [
                "host.toml:1: prefetch: expected 1 to 65535, got 0",
                "host.toml:3: journal.enabled: expected true or false, got a number",
                "NOTIFY_BROKER: broker: broker URL \"redis://u:***@x\": unknown scheme \"redis\"; expected \
                 amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://… or sqlite:PATH",
                "--drain-timeout: drain-timeout: expected 0s to 1h, got 2h",
                "NOTIFY_PREFETCH: prefetch: expected a whole number, got a text",
                "NOTIFY_RETRY_PAUSE_MIN: retry.pause-min: expected a length of time such as \"10s\" or \"1m 30s\", got \"1h\\nx\"",
            ]
        );
    }

    #[test]
    fn a_variable_that_nothing_reads_is_told_if_something_like_it_is_known() {
        let (_folder, layers) = layers(
            "",
            &[
                ("NOTIFY_PREFTECH", "1"),
                ("NOTIFY_LOGLEVEL", "info"),
                ("NOTIFY_RELAY", "x"),
                ("NOTIFY_SOCKET", "/run/systemd/notify"),
                ("NOTIFY_EXCHANGE", "orders"),
                ("NOTIFY_CONFIG", "x"),
                ("NOTIFY_TEST_BROKER", "x"),
                ("NOTIFY_PORT_9471_TCP_ADDR", "10.0.0.1"),
                ("NOTIFY_SERVICE_HOST", "10.0.0.1"),
                ("NOTIFY_PAUSE_MIN", "of two tables"),
            ],
        );
        let warnings = layers.resolve().map_err(String::from).unwrap().warnings;
        let meant: Vec<_> =
            warnings.iter().map(|warning| warning.split_once("the environment has ").unwrap().1).collect();
        assert_eq!(
            meant,
            [
                "NOTIFY_PREFTECH, which nothing reads; did you mean NOTIFY_PREFETCH?",
                "NOTIFY_LOGLEVEL, which nothing reads; did you mean NOTIFY_LOG_LEVEL?",
                "NOTIFY_RELAY, which nothing reads; did you mean NOTIFY_MAIL_RELAY?",
            ]
        );
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let layers = Layers { file: Some("/no/such.toml".into()), ..Layers::default() };
        assert_eq!(String::from(layers.resolve().err().unwrap()), "there is no file /no/such.toml");
    }
}
