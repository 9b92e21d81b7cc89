//! The plugins of a soak, good and bad, and the changes to their files while the host runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::guests::{self, GUESTS, PLUGINS, PLUGINS_CORE};
use crate::project::Project;
use crate::soak::{pause, wasm};

const SWAP_INTERVAL: Duration = Duration::from_secs(4);

/// A plugin, its file, and the routing key of the events that it gets; `None` means all events.
pub(super) struct Kind {
    pub(super) name: &'static str,
    wasm: &'static str,
    pub(super) wants: Option<&'static str>,
    toml: &'static str,
}

/// Settings for a breaker that never opens, so that every event is tried at once and settles soon.
macro_rules! without_breaker {
    ($toml:literal) => {
        concat!("[breaker]\nfailures-percent = 100\ncalls = 1000\nwindow = \"1s\"\n", $toml)
    };
}

const PAID: &str = "[[subscriptions]]\nevent-type = \"OrderPaid\"\n";
const CANCELED: &str = "[[subscriptions]]\nevent-type = \"OrderCanceled\"\n";
/// Name of the plugin that stops failing at the end, so that its waiting events can be settled.
const FAILING: &str = "fails";

pub(super) const KINDS: [Kind; 8] = [
    Kind { name: "logger", wasm: "logger", wants: None, toml: "[config]\nformat = \"json\"\n" },
    Kind { name: "webhook", wasm: "webhook", wants: Some("order.paid"), toml: "" },
    Kind {
        name: "sometimes",
        wasm: "misbehaver",
        wants: None,
        toml: without_breaker!("[retry]\nattempts = 20\npause-max = \"15s\"\n[config]\nact = \"sometimes\"\n"),
    },
    Kind {
        name: "rejects",
        wasm: "misbehaver",
        wants: Some("order.canceled"),
        toml: without_breaker!("[config]\nact = \"reject\"\n"),
    },
    Kind {
        name: "panics",
        wasm: "misbehaver",
        wants: Some("order.canceled"),
        toml: without_breaker!("[retry]\nattempts = 2\n[config]\nact = \"panic\"\n"),
    },
    Kind {
        name: "loops",
        wasm: "misbehaver",
        wants: Some("order.canceled"),
        toml: without_breaker!("[retry]\nattempts = 2\n[limits]\ntime = \"100ms\"\n[config]\nact = \"loop\"\n"),
    },
    Kind {
        name: "eats",
        wasm: "misbehaver",
        wants: Some("order.canceled"),
        toml: without_breaker!(
            "[retry]\nattempts = 1\n[limits]\nmemory = \"16 MiB\"\ntime = \"2s\"\n[config]\nact = \"memory\"\n"
        ),
    },
    Kind { name: FAILING, wasm: "misbehaver", wants: Some("order.canceled"), toml: "[retry]\nattempts = 100\n" },
];

pub(super) struct Plugins {
    folder: PathBuf,
    /// The logger and webhook in both forms, to swap.
    components: PathBuf,
    modules: PathBuf,
    port: u16,
}

impl Plugins {
    pub(super) fn put(project: &Project, folder: &Path, port: u16) -> anyhow::Result<Self> {
        fs::create_dir(folder)?;
        let (components, modules) = (project.target.join(PLUGINS), project.target.join(PLUGINS_CORE));
        let plugins = Self { folder: folder.to_owned(), components, modules, port };
        for kind in &KINDS {
            fs::write(folder.join(format!("{}.toml", kind.name)), plugins.toml(kind, "retry"))?;
            let from = if kind.wasm == "misbehaver" { project.target.join(GUESTS) } else { plugins.components.clone() };
            guests::replace(&wasm(&from, kind.wasm), &wasm(folder, kind.name))?;
        }
        Ok(plugins)
    }

    /// Returns a plugin's toml. `act` applies to the failing plugin.
    fn toml(&self, kind: &Kind, act: &str) -> String {
        let subscription = match kind.wants {
            Some("order.paid") => PAID,
            Some(_) => CANCELED,
            None => "",
        };
        let port = self.port;
        let more = match kind.name {
            "webhook" => format!(
                "[grants]\nhttp = [\"http://127.0.0.1:{port}\"]\nnetworks = [\"127.0.0.0/8\"]\n[limits]\ntime = \"3s\"\n\
                 [retry]\nattempts = 20\npause-max = \"10s\"\n[breaker]\npause-max = \"5s\"\n\
                 [config]\nurl = \"http://127.0.0.1:{port}/orders\"\n"
            ),
            FAILING => format!("[config]\nact = {act:?}\n"),
            _ => String::new(),
        };
        format!("{subscription}{}{more}", kind.toml)
    }

    /// Changes one file after another, and returns the number of changes.
    pub(super) fn swap_until(&self, stop: &AtomicBool) -> anyhow::Result<usize> {
        let mut swaps = 0;
        while !pause(SWAP_INTERVAL, stop) {
            let from = if swaps % 8 < 4 { &self.modules } else { &self.components };
            match swaps % 4 {
                0 => drop(guests::replace(&wasm(from, "logger"), &wasm(&self.folder, "logger"))?),
                1 => drop(guests::replace(&wasm(from, "webhook"), &wasm(&self.folder, "webhook"))?),
                // Change only the toml.
                2 => {
                    let sometimes = &KINDS[2];
                    let toml = format!("# change {swaps}\n{}", self.toml(sometimes, ""));
                    fs::write(self.folder.join("sometimes.toml"), toml)?;
                }
                // Add or remove a plugin that does not load.
                _ => {
                    let broken = wasm(&self.folder, "broken");
                    if fs::exists(&broken)? { fs::remove_file(&broken)? } else { fs::write(&broken, "no wasm")? }
                }
            }
            swaps += 1;
        }
        Ok(swaps)
    }

    /// Makes the failing plugin succeed, so that its waiting events can be settled.
    pub(super) fn mend(&self) -> anyhow::Result<()> {
        for kind in KINDS.iter().filter(|kind| kind.name == FAILING) {
            fs::write(self.folder.join(format!("{}.toml", kind.name)), self.toml(kind, "call-out"))?;
        }
        Ok(())
    }
}
