//! The layers of the host's settings: flags over variables of the environment over the file over the defaults.
//!
//! Each key of the file that is one value has a variable: `NOTIFY_` and its path in upper case, so that
//! `journal.age-max` is `NOTIFY_JOURNAL_AGE_MAX`. An empty one counts as not set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::HostConfig;
use crate::document::{Document, Override};
use crate::faults::{Fault, Problems};
use crate::key::{Asked, Inventory};
use crate::reader;

const PREFIX: &str = "NOTIFY_";
/// Those of OpenTelemetry.
const STANDARD_PREFIX: &str = "OTEL_";
/// Variables with our prefix that are none of the file's keys: of this program, of order-cli, of systemd.
const OTHERS: [&str; 5] =
    ["NOTIFY_ADMIN_TOKEN", "NOTIFY_ADMIN_URL", "NOTIFY_CONFIG", "NOTIFY_EXCHANGE", "NOTIFY_SOCKET"];
/// Those of the tests.
const TESTS: &str = "NOTIFY_TEST_";
/// Where the file of a package is.
const OF_THE_MACHINE: &str = "/etc/notify-host/notify-host.toml";

/// What says how the host is to run. It can be asked again, when the file may have changed.
#[derive(Clone, Default)]
pub struct Layers {
    /// The file that was named.
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    /// Path of the key, flag, value.
    flags: Vec<(&'static str, &'static str, String)>,
}

/// How the host is to run, and who says so.
#[derive(Clone)]
pub struct Resolved {
    pub config: HostConfig,
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// Variables that nothing reads, and that may have been meant otherwise.
    pub warnings: Vec<String>,
    pub(super) asked: Inventory,
    pub(super) sources: Sources,
}

/// What there is, right or wrong.
pub struct Looked {
    /// As far as there are no problems.
    pub config: HostConfig,
    pub file: Option<PathBuf>,
    pub problems: Problems,
    pub warnings: Vec<String>,
    asked: Inventory,
    sources: Sources,
}

/// Who says what a value is.
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
    /// Of this process; `file` is the one that was named.
    pub fn of_process(file: Option<&Path>) -> Self {
        let is_ours = |name: &str| name.starts_with(PREFIX) || name.starts_with(STANDARD_PREFIX);
        let environment = std::env::vars_os().filter(|(name, _)| is_ours(&name.to_string_lossy())).collect();
        Self { file: file.map(Path::to_owned), environment, flags: Vec::new() }
    }

    /// A flag for this key, if it was given.
    pub fn flag(&mut self, path: &'static str, flag: &'static str, value: Option<impl ToString>) {
        self.flags.extend(value.map(|value| (path, flag, value.to_string())));
    }

    /// Reads the file and takes everything together. Every fault in one answer.
    pub fn resolve(&self) -> Result<Resolved, Problems> {
        let Looked { config, file, problems, warnings, asked, sources } = self.look();
        if !problems.0.is_empty() {
            return Err(problems);
        }
        Ok(Resolved { config, file, warnings, asked, sources })
    }

    /// The same, as far as one gets with what is wrong.
    pub fn look(&self) -> Looked {
        let known = HostConfig::keys();
        let (overrides, mut faults) = self.overrides(&known);
        let (file, text) = self.text().unwrap_or_else(|fault| {
            faults.push(*fault);
            (None, String::new())
        });
        let path = file.clone().unwrap_or_default();
        let mut read = HostConfig::read_under(&overrides, &path, &text);
        // What something else is used instead of is still wrong.
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
            faults.push(Fault::of_override(name.to_owned(), problem.to_owned()));
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

    /// The file's path and text.
    fn text(&self) -> Result<(Option<PathBuf>, String), Box<Fault>> {
        let fault = |file: &Path, problem| Box::new(Fault::of_file(file.to_owned(), problem));
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

    /// What stands above the file.
    fn overrides(&self, known: &Inventory) -> (Vec<Override>, Vec<Fault>) {
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
                None => faults.push(Fault::of_override(name, format!("{path}: it is not UTF-8"))),
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
        let known: Vec<_> = known.values().map(Asked::variable).chain(OTHERS.map(str::to_owned)).collect();
        let names = self.environment.iter().map(|(name, _)| name.to_string_lossy());
        let warn = |name: &str| {
            let meant = meant(name, &known)?;
            Some(format!("the environment has {name}, which nothing reads; did you mean {meant}?"))
        };
        names.filter(|name| !name.starts_with(TESTS)).filter_map(|name| warn(&name)).collect()
    }
}

/// Where the file is looked for when nobody names one: the user's own, then that of the machine.
pub fn default_files() -> Vec<PathBuf> {
    use etcetera::BaseStrategy as _;
    let own = etcetera::choose_base_strategy().ok();
    let own = own.map(|directories| directories.config_dir().join("notify-host").join("notify-host.toml"));
    own.into_iter().chain([PathBuf::from(OF_THE_MACHINE)]).collect()
}

/// The variable that may have been meant by one that nothing reads. Others may use the prefix, too: Kubernetes does
/// for a service that is called `notify`.
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
    // Without its table: `NOTIFY_RELAY`.
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
